"""Reads hostile files in a process of its own and says what came of each: time, memory, the error.

    python hostile_reading.py [protocols] [checkpoints] [safetensors] [bundles] ["yaml bundles"]

A line of JSON each: `table`, `name`, `seconds` of processor time, `grown` MiB of peak memory, the error's `kind` and
`message`.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hostile_files
import torch

from medharden.errors import MedHardenError
from medharden.models import load_classifier
from medharden.protocol import load_protocol


def _checkpoint(path: Path) -> None:
    try:
        load_classifier(path)
    except MedHardenError as error:
        if "doesn't say what architecture" not in str(error):
            raise
        load_classifier(path, arch="timm:test_resnet")


def _bundle(path: Path) -> None:
    load_classifier(path.parent.parent)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def _run(table: str, makers: dict[str, hostile_files.Maker], path: Path, read: Callable[[Path], object]) -> None:
    for name, make in makers.items():
        path.write_bytes(make())
        before, began = _peak(), time.process_time()
        kind, message = "", "it was read"
        try:
            read(path)
        except Exception as error:  # what a user would see as a defect is what is looked for
            kind, message = type(error).__name__, str(error)
        spent = {"seconds": time.process_time() - began, "grown": _peak() - before}
        print(json.dumps({"table": table, "name": name, **spent, "kind": kind, "message": message}), flush=True)
        path.unlink()


def main(tables: list[str], folder: Path) -> None:
    """Reads every file of the tables; what is needed for any of them is imported before the first is timed."""
    torch.set_num_threads(1)
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    weights = {"fc.weight": torch.zeros(2, 8), "fc.bias": torch.zeros(2)}
    torch.save(weights, folder / "models" / "model.pt")
    first = hostile_files.archive({"w": hostile_files.tensor([4], [1])})
    _run("", {"": lambda: hostile_files.bundle(block_config=[1])}, folder / "configs" / "inference.json", _bundle)
    _run("", {"": lambda: first}, folder / "m.pt", _checkpoint)
    doors = {
        "protocols": (hostile_files.PROTOCOLS, folder / "p.yaml", load_protocol),
        "checkpoints": (hostile_files.CHECKPOINTS, folder / "m.pt", _checkpoint),
        "safetensors": (hostile_files.SAFETENSORS, folder / "m.safetensors", _checkpoint),
        "bundles": (hostile_files.BUNDLES, folder / "configs" / "inference.json", _bundle),
        "yaml bundles": (hostile_files.YAML_BUNDLES, folder / "configs" / "inference.yaml", _bundle),
    }
    for table in tables:
        _run(table, *doors[table])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(sys.argv[1:], Path(made))
