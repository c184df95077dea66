"""Images a second: what fills the store, beside MONAI's `LoadImaged` in a `DataLoader`, and plain pydicom or Pillow.

    python tests/benchmarks/decoding.py --cases 300 --processes 2

The same files for all, the same number of processes, in one run, in turns; the best of `--rounds` is shown, for on a
machine that others use too it is the one that was disturbed least; rates by processor time hardly feel others.
Uncompressed and JPEG 2000 DICOM are the CT slices of the data sets, each written several times with its rows moved;
JPEG are the chest X-rays as they are. The peers decode into float32 arrays and no more. What fills the store also
digests each file, hashes what it shows, checks it and writes it; "kept" is a later command that finds the cases there
and holds file and case to their digests, "read" is batches of 32 from the store in one thread, as training reads them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from medharden.heap import keep_freed_memory

DATA = Path(os.environ.get("MEDHARDEN_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
KEY = b"a key for benchmarks, sixteen bytes or more"
HEAD = """
schema_version: 1
name: decoding
title: Decoding
intended_use: Measurements.
threat: {eps: 2, unit: 1/255}
splits: {near_duplicate_bits: null, similar_bits: null,
  patients: {unit: each_case, reason: "Nothing is decided."}}
"""
INPUT = {
    "jpeg": "input: {channels: gray}\n",
    "dicom": "input: {channels: gray, intensity: {mode: window, low: -160, high: 240}}\n",
}


def write_jpeg(folder: Path, cases: int) -> list[Path]:
    from PIL import Image

    with (DATA / "kermany_cxr_224" / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    paths: dict[bytes, Path] = {}  # some images are there twice
    for row in rows:
        source = DATA / "kermany_cxr_224" / row["path"]
        pixels = hashlib.sha256(Image.open(source).tobytes()).digest()
        if pixels in paths:
            continue
        paths[pixels] = folder / "ab"[len(paths) % 2] / f"{len(paths)}.jpeg"
        paths[pixels].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, paths[pixels])
        if len(paths) == cases:
            break
    return list(paths.values())


def write_dicom(folder: Path, cases: int, compressed: bool) -> list[Path]:
    """The slices with their rows moved, uncompressed, or made JPEG 2000 by GDCM."""
    import gdcm
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    sources = sorted((DATA / "ct_contrast_dicom").rglob("*.dcm"))
    paths = []
    for n in range(cases):
        ds = pydicom.dcmread(sources[n % len(sources)])
        ds.PixelData = np.roll(ds.pixel_array, 7 * (n // len(sources)), axis=0).tobytes()
        label = hashlib.sha256(ds.PixelData).digest()[0] % 2  # some slices are there twice
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID = generate_uid()
        path = folder / "ab"[label] / f"{n}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
        if compressed:
            reader = gdcm.ImageReader()
            reader.SetFileName(str(path))
            assert reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            writer.SetFileName(str(path))
            assert writer.Write()
        paths.append(path)
    return paths


def plain(path: Path) -> int:
    """One file by pydicom or Pillow, rescaled to float32; its number of values."""
    if path.suffix == ".jpeg":
        from PIL import Image

        return int((np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255).size)
    import pydicom

    ds = pydicom.dcmread(path)
    return int((ds.pixel_array.astype(np.float32) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)).size)


def by_plain(paths: list[Path], processes: int) -> None:
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        assert all(pool.imap_unordered(plain, paths, chunksize=4))
        pool.close()
        pool.join()


def by_monai(paths: list[Path], processes: int) -> None:
    """`LoadImaged` alone, on the reader that MONAI has for the files, without metadata, as fast as it goes."""
    from monai.data import DataLoader, Dataset, PILReader, PydicomReader
    from monai.transforms import LoadImaged

    reader = PILReader(converter=lambda image: image.convert("L")) if paths[0].suffix == ".jpeg" else PydicomReader()
    load = LoadImaged(keys="image", reader=reader, image_only=True, ensure_channel_first=False)
    data = Dataset([{"image": str(path)} for path in paths], load)
    loader = DataLoader(data, batch_size=8, num_workers=processes, collate_fn=list)
    assert sum(len(batch) for batch in loader) == len(paths)


def cohort_of(root: Path, kind: str, processes: int, cache: Path) -> object:
    from medharden.data import load_cohort
    from medharden.protocol import parse_protocol

    protocol = parse_protocol(HEAD + INPUT["jpeg" if kind == "JPEG" else "dicom"], "decoding")
    return load_cohort(root, protocol, key=KEY, workers=processes, cache=cache)


def spent() -> tuple[float, float]:
    """Seconds of the clock, and of the processor in this process and in those that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    before = spent()
    work()
    after = spent()
    return after[0] - before[0], after[1] - before[1]


def decoded_alone(root: Path, kind: str, processes: int, cache: Path) -> tuple[float, float]:
    """Seconds of what fills the store, without the cohort's checks, which the peers don't make."""
    from medharden.data import cohort
    from medharden.data.store import reading

    taken: list[tuple[float, float]] = []
    read_cases = reading.read_cases

    def clocked(*given: object, **named: object) -> object:
        found = []
        taken.append(timed(lambda: found.append(read_cases(*given, **named))))  # type: ignore[arg-type]
        return found[0]

    cohort.read_cases = clocked  # type: ignore[assignment]
    try:
        cohort_of(root, kind, processes, cache)
    finally:
        cohort.read_cases = read_cases
    return taken[0]


def batches(cohort: object) -> None:
    for start in range(0, len(cohort.cases), 32):  # type: ignore[attr-defined]
        cohort.batch(range(start, min(start + 32, len(cohort.cases))))  # type: ignore[attr-defined]


def measure(kind: str, root: Path, paths: list[Path], processes: int, rounds: int) -> dict[str, float]:
    cache = root.with_suffix(".cache")
    best: dict[str, float] = {}

    def note(name: str, taken: tuple[float, float]) -> None:
        for what, seconds in zip((name, f"{name}, processor"), taken, strict=True):
            best[what] = max(best.get(what, 0.0), len(paths) / max(seconds, 1e-9))

    by_monai(paths[:4], processes)  # what is imported and registered the first time is not decoding
    by_plain(paths[:4], processes)
    for _ in range(rounds):
        shutil.rmtree(cache, ignore_errors=True)
        note("medharden", decoded_alone(root, kind, processes, cache))
        note("MONAI", timed(lambda: by_monai(paths, processes)))
        note("plain", timed(lambda: by_plain(paths, processes)))
        note("kept", decoded_alone(root, kind, processes, cache))
    return best


def read_again(kind: str, root: Path, cases: int, processes: int, rounds: int) -> dict[str, float]:
    """Batches from the store, as training reads them: with freed memory kept, and more than once."""
    cohort = cohort_of(root, kind, processes, root.with_suffix(".cache"))
    taken = [timed(lambda: batches(cohort)) for _ in range(max(3, rounds))]
    return {"read": cases / min(t[0] for t in taken), "read, processor": cases / min(t[1] for t in taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(".bench/decoding"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(given.work, ignore_errors=True)
    makers = {
        "JPEG": write_jpeg,
        "DICOM": lambda folder, cases: write_dicom(folder, cases, compressed=False),
        "DICOM, JPEG 2000": lambda folder, cases: write_dicom(folder, cases, compressed=True),
    }
    found: dict[str, dict[str, float]] = {}
    lengths = {}
    for n, (kind, write) in enumerate(makers.items()):
        paths = write(given.work / str(n), given.cases)
        lengths[kind] = len(paths)
        found[kind] = measure(kind, given.work / str(n), paths, given.processes, given.rounds)
    keep_freed_memory()  # from here on: what is forked would inherit it
    print("| Files | | medharden | MONAI | pydicom, Pillow | kept | read |\n|---|---|---|---|---|---|---|")
    for n, kind in enumerate(makers):
        found[kind] |= read_again(kind, given.work / str(n), lengths[kind], given.processes, given.rounds)
        for of, end in (("a second", ""), ("a second of processor", ", processor")):
            rates = (found[kind][f"{name}{end}"] for name in ("medharden", "MONAI", "plain", "kept", "read"))
            print(f"| {kind} | {of} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
