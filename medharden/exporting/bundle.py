"""The composite as a MONAI bundle: metadata, weights, graph, and an inference that reads files as the cohort was.

Source: MONAI bundle specification, https://docs.monai.io/en/stable/mb_specification.html
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medharden._version import __version__
from medharden.canonical import canonical_json
from medharden.exporting.forms import Runner, opened_script, script_bytes
from medharden.exporting.graph import Deployed
from medharden.models import Contract, HardenedClassifier, describe_hardened, hardened_bytes

__all__ = ["GRAPH", "bundle_files", "opened_bundle"]

GRAPH = "/models/model.ts"
_SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"


class _Columns(nn.Module):
    """The outputs side by side, for a bundle's network answers with one tensor.

    (N, 3 K + 1) float32: K logits, K probabilities, K answers (1 where the class is answered or the finding is there),
    and 1 where a reader is told to look.
    """

    def __init__(self, graph: Deployed, classes: int) -> None:
        super().__init__()
        self.graph, self.classes = graph, classes

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.graph(inputs)
        answer = found["answer"] if self.graph.multilabel else functional.one_hot(found["answer"], self.classes)
        return torch.cat([found["logits"], found["probabilities"], answer.float(), found["refer"].float()[:, None]], 1)


def bundle_files(
    graph: Deployed, model: HardenedClassifier, contract: Contract, metadata: Mapping[str, str], card: str
) -> dict[str, bytes]:
    """Every file of a bundle, by its name behind the bundle's folder.

    Args:
        graph: the composite as one graph.
        model: the composite.
        contract: what it takes and answers.
        metadata: what the export says of itself, as text by key.
        card: Markdown for `docs/README.md`.
    """
    described = canonical_json(describe_hardened(model)) + b"\n"
    whole, weights = _Columns(graph, len(contract.classes)), io.BytesIO()
    torch.save(dict(whole.state_dict()), weights)  # what the paths share is one tensor, and stored once
    return {
        "/configs/metadata.json": _json(_metadata(model, contract, metadata)),
        "/configs/inference.json": _json(_inference(contract)),
        "/docs/README.md": card.encode(),
        GRAPH: script_bytes(whole, contract.shape, metadata),
        "/models/model.pt": weights.getvalue(),
        "/models/hardened.safetensors": hardened_bytes(model, described),
        "/models/hardened.json": described,
    }


def opened_bundle(files: Mapping[str, bytes], classes: int, *, multilabel: bool) -> Runner:
    """A bundle's graph, made here, to be run; its columns are taken apart again."""
    run: Any = opened_script(files[GRAPH])

    def answer(inputs: Tensor) -> Mapping[str, Tensor]:
        logits, shares, decided, refer = run(inputs).split([classes, classes, classes, 1], dim=1)
        said = decided.long() if multilabel else decided.argmax(1)
        return {"logits": logits, "probabilities": shares, "answer": said, "refer": refer[:, 0] > 0}

    return answer


def _metadata(model: HardenedClassifier, contract: Contract, said: Mapping[str, str]) -> dict[str, Any]:
    k, record = len(contract.classes), model.clean_path.record
    marked = "" if said.get("medharden.gated") == "yes" else "UNGATED: these weights have no PASS. "
    columns = [f"{kind} of {name}" for kind in ("logit", "probability", "answer") for name in contract.classes]
    shape = contract.shape
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by medharden {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": str(torch.__version__).partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medharden": __version__, "pytorch-ignite": "0.4.11", "fire": "0.4.0"},
        "name": f"Hardened {record.arch}",
        "task": "Classification of medical images" if not model.multilabel else "Findings in medical images",
        "description": f"{marked}A classifier hardened against adversarial manipulation, with its original inside.",
        "authors": "see docs/README.md",
        "copyright": "see docs/README.md",
        "intended_use": "see docs/README.md",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": shape[0],
                    "spatial_shape": list(shape[1:]),
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {str(n): "image" for n in range(shape[0])},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": 3 * k + 1,
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(n): name for n, name in enumerate([*columns, "referral"])},
                }
            },
        },
        "medharden": dict(said),
    }


def _inference(contract: Contract) -> dict[str, Any]:
    """What `python -m monai.bundle run` runs: every file of `dataset_dir` through the view, answers to a table."""
    view = {
        "_target_": "medharden.predicting.ViewTransform",
        "view": contract.input.model_dump(mode="json"),
        "shape": list(contract.shape),
    }
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$[p for p in sorted(glob.glob(os.path.join(@dataset_dir, '*'))) if os.path.isfile(p)]",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": "torch.jit.load",
            "f": f"$@bundle_root + '{GRAPH}'",
            "map_location": "@device",
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [view]},
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "filename": "predictions.csv",
                "batch_transform": "$monai.handlers.from_engine(['image_meta_dict'])",
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"
