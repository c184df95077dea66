"""MONAI's own runner on an exported bundle."""

from __future__ import annotations

import csv
from pathlib import Path

import monai.bundle


def answered_by_monai(bundle: Path, pictures: Path, out: Path) -> dict[str, list[float]]:
    """What a bundle's `inference.json` answers to the files of a folder, by their path: its table's numbers."""
    monai.bundle.run(
        meta_file=str(bundle / "configs" / "metadata.json"),
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        dataset_dir=str(pictures),
        output_dir=str(out),
    )
    with (out / "predictions.csv").open(encoding="utf-8") as stream:
        return {row[0]: [float(value) for value in row[1:]] for row in csv.reader(stream)}
