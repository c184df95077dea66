"""Both classifiers of pictures of MONAI's model zoo: loaded as shipped, hardened, and exported as a bundle again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai_runner import answered_by_monai
from PIL import Image
from zoo_bundles import BODY, BREAST, as_shipped, resized

from medharden.data import load_cohort
from medharden.data.stored.cases import stored_cases
from medharden.exporting import export
from medharden.hardening import harden
from medharden.models import load_classifier, load_hardened
from medharden.models.bundles import bundle_inputs
from medharden.models.source_view import view_lines
from medharden.parity import show_parity
from medharden.predicting import predict
from medharden.protocol import parse_protocol

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI's and torchvision's own

KEY = b"a key for tests, sixteen bytes or more"
TEXT = """
schema_version: 1
name: zoo
title: Zoo
intended_use: Tests.
task: {{classes: [{classes}]}}
{view}
threat: {{norm: linf, eps: 2, unit: 1/255}}
splits: {{patients: {{unit: each_case, reason: Each image is drawn by itself.}}}}
hardening: {{branch: full, epochs: 1, min_steps: 1, batch_size: 4, probe_cases: 4}}
fusion: {{mode: guarded, referral_budget: 0.3}}
"""


def pictures(folder: Path, names: tuple[str, ...]) -> Path:
    """Three pictures a class, of changing size and form, in a folder each."""
    rng = np.random.default_rng(0)
    for n in range(3 * len(names)):
        place = folder / names[n % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 200, (50 + n % 5, 61, 3)).astype(np.uint8)
        values[: 10 * (n % len(names) + 1)] = 230
        Image.fromarray(values).save(place / f"{n}.{('png', 'jpg')[n % 2]}")
    return folder


def answers(bundle: Path, files: list[Path], folder: Path) -> dict[str, list[float]]:
    """What MONAI's own runner answers to files, by their number and ending."""
    (folder / "in").mkdir(parents=True)
    for number, file in enumerate(files):
        (folder / "in" / f"{number}{file.suffix}").write_bytes(file.read_bytes())
    return {Path(name).name: row for name, row in answered_by_monai(bundle, folder / "in", folder / "out").items()}


@pytest.mark.parametrize(
    ("config", "side", "names"),
    [(BREAST, 80, ("A", "B", "C", "D")), (BODY, 48, ("in body", "out body"))],
    ids=["breast density", "endoscopic in-body"],
)
def test_a_bundle_of_the_zoo_is_hardened_and_exported_and_monai_runs_it_to_the_same_answers(
    tmp_path: Path, config: dict[str, Any], side: int, names: tuple[str, ...]
) -> None:
    bundle, network = as_shipped(tmp_path / "bundle", resized(config, side), names)
    view = bundle_inputs(bundle, 2)
    assert view is not None
    protocol = parse_protocol(TEXT.format(classes=", ".join(names), view=view_lines(view)), "zoo.yaml")
    original = load_classifier(bundle, fed=protocol.input, spec=protocol.model)
    assert original.record.class_names == names
    data = pictures(tmp_path / "data", names)
    cohort = load_cohort(data, protocol, key=KEY)
    shown = show_parity(original, cohort, lambda: stored_cases(data, protocol, key=KEY), protocol, cases=2)
    assert shown.shown, shown

    record = harden(original, cohort, protocol, tmp_path / "run", parity=shown)
    assert record.clean_logits_identical
    assert record.parity == shown
    assert record.branch.stored_parameters > 0, "the branch trained"

    released = load_hardened(tmp_path / "run")
    inputs, _ = cohort.batch(range(2))
    with torch.no_grad():
        by_hand = network(original.normalised(inputs))
        assert torch.equal(released.clean_path(inputs), by_hand)
    made, _ = export(released, tmp_path / "run", to="bundle", ungated=True)
    files = sorted(data.rglob("*.*"))[:3]
    rows = answers(made, files, tmp_path / "monai")
    for number, expected in enumerate(predict(released, files)):
        row = rows[f"{number}{files[number].suffix}"]
        logits = released.assess(read(files[number], released)).logits[0]
        assert torch.tensor(row[: len(names)]) == pytest.approx(logits, abs=1e-4)
        assert row[len(names) : 2 * len(names)] == pytest.approx(list(expected.probabilities), abs=1e-4)
        assert bool(row[-1]) == expected.referred


def read(file: Path, model: Any) -> torch.Tensor:
    import medharden

    return medharden.read_case(file, model)
