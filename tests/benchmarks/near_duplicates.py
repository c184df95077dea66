"""Distances of perceptual hashes: between different patients, and between an image and planted copies of it.

Run as `python tests/benchmarks/near_duplicates.py`; MEDHARDEN_TEST_DATA names the folder of the data sets.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from medharden.data import load_cohort, write_phantom_cohort
from medharden.data.checks.near import near_pairs, picture_hashes
from medharden.protocol import load_protocol, parse_protocol

DATA = Path(os.environ.get("MEDHARDEN_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
KEY = b"a key for benchmarks, sixteen bytes or more"
BITS = (8, 16, 24, 40, 48)
HEAD = "schema_version: 1\nname: x\ntitle: x\nintended_use: x\n"
CT = (
    "columns: {label: contrast, patient: patient_id}\nthreat: {eps: 4, unit: HU}\n"
    "input: {channels: gray, size: [256, 256], intensity: {mode: window, low: -160, high: 240}}\n"
)
PET = (
    "threat: {eps: 0.01}\nsplits: {train: 0.5, val: 0.2, test: 0.3}\n"
    "input: {dims: 3, channels: gray, size: [64, 64, 64], intensity: {mode: percentile, low: 1, high: 99}}\n"
)

Images = Sequence[np.ndarray]
Picture = Image.Image


def xrays() -> tuple[Images, list[str]]:
    folder = DATA / "kermany_cxr_224"
    with (folder / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [np.asarray(Image.open(folder / r["path"]).convert("L")) for r in rows], [r["patient"] for r in rows]


def archive(name: str) -> tuple[Images, list[str]]:
    with np.load(DATA / name) as arrays:
        images = [case for split in ("train", "val", "test") for case in arrays[f"{split}_images"]]
    return [a[len(a) // 2] if a.ndim == 3 else a for a in images], [str(n) for n in range(len(images))]


def cohort(source: Path, yaml: str) -> tuple[Images, list[str]]:
    found = load_cohort(source, parse_protocol(HEAD + yaml, "benchmark") if yaml else load_protocol("demo"), key=KEY)
    middle = [x.mean(0) for x in found.inputs]
    middle = [m[len(m) // 2] if m.ndim == 3 else m for m in middle]
    return [(m * 255).round().astype(np.uint8) for m in middle], [c.patient for c in found.cases]


def as_inputs(images: Images) -> np.ndarray:
    return np.stack(images)[:, None].astype(np.float32) / 255


def moved(picture: Picture) -> Picture:
    return Image.fromarray(np.roll(np.asarray(picture), 1, 1))


def levels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Picture], Picture]:
    return lambda p: Image.fromarray(np.clip(change(np.asarray(p, dtype=float)), 0, 255).astype(np.uint8))


def jpeg(quality: int) -> Callable[[Picture], Picture]:
    def change(picture: Picture) -> Picture:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=quality)
        return Image.open(stream)

    return change


def cropped(share: float) -> Callable[[Picture], Picture]:
    def change(picture: Picture) -> Picture:
        side = picture.size[0]
        edge = max(1, round(share * side))
        return picture.crop((edge, edge, side - edge, side - edge)).resize(picture.size, Image.Resampling.BILINEAR)

    return change


def halved(picture: Picture) -> Picture:
    small = picture.resize((picture.size[0] // 2, picture.size[1] // 2), Image.Resampling.BILINEAR)
    return small.resize(picture.size, Image.Resampling.BILINEAR)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "JPEG quality 50": jpeg(50),
    "JPEG quality 20": jpeg(20),
    "half the size and back": halved,
    "noise of 5 grey levels": levels(lambda x: x + np.random.default_rng(0).normal(0, 5, x.shape)),
    "brightness + 20 grey levels": levels(lambda x: x + 20),
    "brightness x 1.2": lambda p: ImageEnhance.Brightness(p).enhance(1.2),
    "contrast x 1.3": lambda p: ImageEnhance.Contrast(p).enhance(1.3),
    "gamma 0.8": levels(lambda x: 255 * (x / 255) ** 0.8),
    "cropped by 1 pixel a side, resized": cropped(0.0),
    "moved by 1 pixel": moved,
    "turned by 1 degree": lambda p: p.rotate(1, Image.Resampling.BILINEAR),
    "cropped by 2 % a side, resized": cropped(0.02),
    "cropped by 5 % a side, resized": cropped(0.05),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_phantom_cohort(Path(folder) / "phantoms", patients=300, seed=1)
        sets = {
            "chest X-rays": xrays(),
            "CT slices": cohort(DATA / "ct_contrast_dicom", CT),
            "FDG-PET volumes": cohort(DATA / "cdi_fdgpet", PET),
            "AdrenalMNIST3D": archive("adrenalmnist3d_64/adrenalmnist3d_64.npz"),
            "BreastMNIST": archive("medmnist28/breastmnist.npz"),
            "phantoms": cohort(Path(folder) / "phantoms", ""),
        }
    for name, (images, patients) in sets.items():
        near = [p.bits for p in near_pairs(picture_hashes(as_inputs(images)), patients, BITS[-1])]
        _, sizes = np.unique(patients, return_counts=True)
        pairs = (len(images) ** 2 - int((sizes**2).sum())) // 2
        print(f"| {name} | {pairs} |", " | ".join(str(sum(b <= bits for b in near)) for bits in BITS), "|")
    for name, every in (("chest X-rays", 9), ("CT slices", 1), ("BreastMNIST", 4)):
        images = sets[name][0][::every]
        for words, change in CHANGES.items():
            copies = [np.asarray(change(Image.fromarray(a))) for a in images]
            before, after = picture_hashes(as_inputs(images)), picture_hashes(as_inputs(copies))
            bits = [int((a != b).sum()) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
            shares = " | ".join(f"{np.mean(np.array(bits) <= limit):.2f}" for limit in BITS[:4])
            print(f"| {name} ({len(images)}), {words} | {shares} |")


if __name__ == "__main__":
    main()
