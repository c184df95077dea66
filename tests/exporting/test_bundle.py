"""A MONAI bundle of a run, as MONAI checks and runs it: the same files get the same answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from monai_runner import answered_by_monai
from released_runs import Released, released_once
from tiny import ARCH

from medharden.exporting import export
from medharden.models import load_hardened
from medharden.predicting import predict

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI's own

TEXT, NUMBER, OBJECT, LIST = ({"type": kind} for kind in ("string", "number", "object", "array"))
TENSOR = {
    **OBJECT,
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        **dict.fromkeys(("type", "format", "dtype"), TEXT),
        "num_channels": {"type": "integer"},
        "spatial_shape": LIST | {"items": {"type": ["string", "integer"]}},
        "value_range": LIST | {"items": NUMBER},
        "is_patch_data": {"type": "boolean"},
        "channel_def": OBJECT,
    },
}
NAMED = {**OBJECT, "additionalProperties": {"anyOf": [*({"type": t} for t in ("number", "string", "boolean")), TENSOR]}}
SCHEMA = {  # what MONAI's meta_schema_20240725.json asks, which is not to be had without a network
    **OBJECT,
    "required": [
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
        "description", "authors", "copyright", "network_data_format",
    ],
    "properties": {
        **dict.fromkeys(
            (
                "schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description",
                "authors", "copyright", "data_source", "data_type", "image_classes", "label_classes", "pred_classes",
                "intended_use",
            ),
            TEXT,
        ),
        **dict.fromkeys(("changelog", "required_packages_version", "eval_metrics", "supported_apps"), OBJECT),
        "references": LIST | {"items": TEXT},
    },
    "patternProperties": {
        "_data_format$": {
            **OBJECT,
            "required": ["inputs", "outputs"],
            "properties": dict.fromkeys(("inputs", "outputs", "post_processed_outputs"), NAMED),
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released_once(tmp_path_factory, "guarded")


@pytest.fixture(scope="module")
def bundle(made: Released) -> Path:
    path, _ = export(load_hardened(made.run, arch=ARCH), made.run, to="bundle")
    return path


def verified(metadata: Path, folder: Path) -> None:
    """By MONAI, against the schema on disk, which it then doesn't fetch."""
    import monai.bundle

    (folder / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    monai.bundle.verify_metadata(meta_file=str(metadata), filepath=str(folder / "schema.json"))


def test_monai_verifies_the_metadata(bundle: Path, tmp_path: Path) -> None:
    verified(bundle / "configs" / "metadata.json", tmp_path)
    said = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert said["schema"].endswith("/meta_schema_20240725.json")
    assert said["medharden"]["medharden.verdict"] == "PASS"
    del said["network_data_format"]["outputs"]["pred"]["dtype"]
    (tmp_path / "worse.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ValueError, match="Failed validating"):
        verified(tmp_path / "worse.json", tmp_path)


def test_monai_finds_the_network_to_be_as_the_metadata_say(bundle: Path) -> None:
    import monai.bundle

    configs = bundle / "configs"
    monai.bundle.verify_net_in_out(
        "network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
        bundle_root=str(bundle),
    )


def test_monai_runs_the_bundle_to_the_answers_of_the_run(bundle: Path, made: Released, tmp_path: Path) -> None:
    paths = made.pictures(tmp_path / "data", 12)
    rows = answered_by_monai(bundle, tmp_path / "data", tmp_path / "eval")
    model = load_hardened(made.run, arch=ARCH)
    assert set(rows) == {str(path) for path in paths}
    for expected in predict(model, paths):
        row, k = rows[expected.path], len(model.classes)
        assert row[k : 2 * k] == pytest.approx(list(expected.probabilities), abs=1e-6)
        assert model.classes[row[2 * k : 3 * k].index(1.0)] == expected.answer[0]
        assert bool(row[3 * k]) == expected.referred


def test_the_operator_on_the_page_on_production_answers_as_the_run(
    bundle: Path, made: Released, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    (source,) = (part for part in re.findall(r"```python\n(.*?)```", page, re.S) if "class Classify" in part)
    space: dict[str, Any] = {"__name__": "operator"}
    exec(compile(source, "operator", "exec"), space)  # the page's own
    answer = space["Classify"](bundle)
    paths = made.pictures(tmp_path, 5)
    for expected in predict(load_hardened(made.run, arch=ARCH), paths):
        assert answer(Path(expected.path)) == (expected.answer[0], expected.referred)


def test_the_weights_of_a_bundle_are_those_of_its_graph_and_of_the_run(bundle: Path, made: Released) -> None:
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    graph = torch.jit.load(bundle / "models" / "model.ts")
    assert state.keys() == graph.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in graph.state_dict().items())
    graph.load_state_dict(state, strict=True)
    for name in ("hardened.safetensors", "hardened.json"):
        assert (bundle / "models" / name).read_bytes() == (made.run / name).read_bytes()
    assert load_hardened(bundle / "models", arch=ARCH).classes == made.cohort.classes
