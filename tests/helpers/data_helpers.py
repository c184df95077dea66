"""Small files that the tests of `medharden.data` read: DICOM, pictures, protocols."""

from __future__ import annotations

import csv
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medharden.protocol import Input, Intensity, Protocol, ThreatModel

KEY = b"a test key of 32 bytes, no secret"


def protocol(**fields: Any) -> Protocol:
    """A minimal protocol with some fields replaced."""
    given = {"schema_version": 1, "name": "test", "title": "Test", "intended_use": "Tests"} | fields
    return Protocol(threat=ThreatModel(eps=2.0, unit="1/255"), **given)


def sized(height: int, width: int, **fields: Any) -> Protocol:
    """A protocol that resamples images."""
    return protocol(input=Input(size=(height, width), **fields))


def window(low: float, high: float) -> Intensity:
    """A fixed window."""
    return Intensity(mode="window", low=low, high=high)


def dicom(path: Path, stored: np.ndarray, **fields: Any) -> Path:
    """A grey CT image of the given stored integers; `fields` add or replace elements, None removes one."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "2.25.1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        ds.NumberOfFrames = stored.shape[0]
    bits = 8 * stored.dtype.itemsize
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in fields.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    data = stored.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def png(path: Path, seed: int, size: tuple[int, int] = (12, 10), colour: bool = False) -> Path:
    """A picture of random values."""
    rng = np.random.default_rng(seed)
    shape = (*size, 3) if colour else size
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


def class_folders(root: Path, per_class: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A folder a class, all pictures different."""
    for k, name in enumerate(classes):
        for n in range(per_class):
            png(root / name / f"{n}.png", 1000 * k + n)
    return root


def codes(cohort) -> set[str]:
    return {finding.code for finding in cohort.record.findings}


def sizes(cohort) -> tuple[int, int, int]:
    return tuple(len(cohort.indices(split)) for split in ("train", "val", "test"))


def manifest(root: Path, rows: list[dict[str, object]], name: str = "manifest.csv") -> Path:
    with (root / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root / name


def listed(root: Path, n: int = 20, **columns) -> list[dict[str, object]]:
    """Pictures on disk and a row for each; a column is a function of the row's number."""
    rows = []
    for k in range(n):
        png(root / "img" / f"{k}.png", k)
        rows.append({"path": f"img/{k}.png", "label": "ab"[k % 2]} | {c: f(k) for c, f in columns.items()})
    return rows


def ct_folder(root: Path, **header) -> Path:
    rng = np.random.default_rng(0)
    for n in range(24):
        stored = rng.integers(-1000, 1000, (8, 8)).astype(np.int16)
        fields = {name: f(n) for name, f in header.items()}
        dicom(root / ("ab"[n % 2]) / f"{n}.dcm", stored, **fields)
    return root


def conformance(path: Path) -> Counter[str]:
    """dciodvfy's errors of a DICOM file; Debian's dicom3tools must be installed."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    return Counter(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error"))
