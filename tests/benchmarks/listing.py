"""What it costs to list many DICOM slices before anything is decoded: folders of series, and a spreadsheet of them.

    python tests/benchmarks/listing.py [SLICES]

Makes so many tiny slices (10 000) in series of 100 below a temporary folder, and lists the first eighth, quarter, half
and all of them: as class folders, as a manifest that names each folder, each UID, or one file of each series. Time that
grows faster than the number of slices would show from line to line.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from data_helpers import protocol
from dicom_volumes import positions, series

from medharden.data.sources.listing import list_source
from medharden.protocol import Columns, Input, Intensity, Protocol

_SLICES = 100  # a series


def make(root: Path, count: int) -> list[tuple[str, str]]:
    """So many series as an archive exports them; the folder below the root and the UID of each."""
    frames = np.random.default_rng(0).integers(0, 1000, (_SLICES, 4, 4)).astype(np.int16)
    made = []
    for n in range(count):
        folder = f"{'ab'[n % 2]}/PA{n // 10:04d}/ST{n % 10:02d}/SE0"
        names = [f"IM{k:06d}" for k in range(_SLICES)]
        uid = f"1.2.840.99.{n}"
        series(root / folder, frames, positions(_SLICES), uid=uid, names=names, PatientID=f"P{n // 10}")
        made.append((folder, uid))
    return made


def manifest(root: Path, made: list[tuple[str, str]], how: str) -> Path:
    """A spreadsheet with a row a series."""
    table = root / f"{how}.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["where", "label"])
        for folder, uid in made:
            said = {"folder": folder, "uid": uid, "file": f"{folder}/IM000042"}[how]
            writer.writerow([said, folder[0]])
    return table


def rules(**fields: object) -> Protocol:
    """Volumes."""
    return protocol(input=Input(dims=3, intensity=Intensity(mode="window", low=0, high=1000)), **fields)


def main(slices: int) -> None:
    """Prints a line for each number of slices."""
    with tempfile.TemporaryDirectory() as name:
        whole, part = Path(name) / "whole", Path(name) / "part"
        made = make(whole, slices // _SLICES)
        print("slices   folders: s  per slice: ms   by folder: s   by UID: s   by file: s")
        for share in (8, 4, 2, 1):
            chosen = made[: len(made) // share]
            shutil.rmtree(part, ignore_errors=True)
            for folder, _ in chosen:
                (part / folder).parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(whole / folder, part / folder)
            seconds = [_timed(part, rules(), len(chosen))]
            for how in ("folder", "uid", "file"):
                table = manifest(part, chosen, how)
                seconds.append(_timed(table, rules(columns=Columns(path="where", label="label")), len(chosen)))
                table.unlink()
            count = len(chosen) * _SLICES
            first, *others = seconds
            print(
                f"{count:6d}   {first:10.1f}  {1000 * first / count:13.3f}   " + "   ".join(f"{s:9.1f}" for s in others)
            )


def _timed(source: Path, wanted: Protocol, cases: int) -> float:
    started = time.perf_counter()
    listing = list_source(source, wanted, lambda text: text, 2**30)
    took = time.perf_counter() - started
    assert len(listing.entries) == cases, (len(listing.entries), listing.problems[:3])
    return took


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
