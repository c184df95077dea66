"""Retrieval from a real Orthanc on the loopback address: `python tests/benchmarks/orthanc.py`.

Needs Debian's packages orthanc and orthanc-dicomweb. Uploads the series of pydicom's DICOMDIR example and one of 200
made CT slices, retrieves them by the UIDs of a table, and holds each file's pixel data and transfer syntax against it.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pydicom
import requests
from pydicom.data import get_testdata_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from data_helpers import KEY, protocol
from dicom_volumes import positions, series

from medharden.data.dicomweb.address import address_of
from medharden.data.dicomweb.query import query_of
from medharden.data.dicomweb.retrieving import retrieved
from medharden.protocol import Columns, Input

PORT = 18042
SLICES = 200
SPEC = protocol(input=Input(dims=3, size=(16, 16, 16)), columns=Columns(path="series_uid", label="finding"))


def main() -> None:
    """Prints how long retrieval takes, and stops where a value differs."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        frames = np.random.default_rng(0).integers(0, 4000, (SLICES, 512, 512)).astype(np.int16)
        series(root / "made", frames, positions(SLICES), uid="2.25.77")
        sources = [*(root / "made").iterdir(), *Path(get_testdata_file("DICOMDIR")).parent.rglob("*")]
        files: dict[str, dict[str, Path]] = defaultdict(dict)
        server = start(root)
        try:
            for path in sources:
                if path.is_file() and "DICOMDIR" not in path.name and pydicom.misc.is_dicom(path):
                    header = pydicom.dcmread(path, stop_before_pixels=True)
                    if "SeriesInstanceUID" in header:
                        files[header.SeriesInstanceUID][header.SOPInstanceUID] = path
                        requests.post(f"http://127.0.0.1:{PORT}/instances", path.read_bytes()).raise_for_status()
            with (root / "labels.csv").open("w", newline="") as stream:
                csv.writer(stream).writerows([("series_uid", "finding"), *((uid, "a") for uid in files)])
            for what in ("first", "again"):
                began = time.perf_counter()
                address = address_of(f"http://127.0.0.1:{PORT}/dicom-web")
                with retrieved(root / "labels.csv", SPEC, address, key=KEY, cache=root / "cache") as found:
                    took = time.perf_counter() - began
                    count, size = compared(found.data.parent, files)
                print(
                    f"{what}: {len(files)} series, {count} files of {size / 2**20:.1f} MiB in {took:.2f} s, all equal"
                )
            for asked in ("/series", "/studies", "/series?limit=3", "/series?Modality=CT"):
                searched(asked, files)
        finally:
            server.terminate()
            server.wait()


def searched(asked: str, files: dict[str, dict[str, Path]]) -> None:
    """A search in the place of a table, whose answer names the series; all of a study where it names studies."""
    query = query_of(Path(f"dicomweb+http://127.0.0.1:{PORT}/dicom-web{asked}"))
    spec = SPEC.model_copy(update={"columns": Columns(label="Modality")})
    with retrieved(query, spec, query.address, key=KEY) as found:
        with found.data.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        got = {pydicom.dcmread(path).SeriesInstanceUID for path in found.data.parent.rglob("*.dcm")}
        if not got <= set(files) or ("?" not in asked and got != set(files)):
            raise SystemExit(f"{asked}: {len(got)} series came, of {len(files)}")
        print(f"{asked}: {len(rows)} rows, {len(got)} series; columns {', '.join(rows[0])}")


def start(root: Path) -> subprocess.Popen[bytes]:
    """Orthanc with its DICOMweb plugin, once it answers."""
    said = {
        "StorageDirectory": str(root / "orthanc"),
        "IndexDirectory": str(root / "orthanc"),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpPort": PORT,
        "DicomServerEnabled": False,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (root / "orthanc.json").write_text(json.dumps(said))
    server = subprocess.Popen(["Orthanc", str(root / "orthanc.json")], stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            print(f"Orthanc {requests.get(f'http://127.0.0.1:{PORT}/system', timeout=1).json()['Version']}")
            return server
        except requests.RequestException:
            time.sleep(0.2)
    server.terminate()
    raise SystemExit("Orthanc does not answer")


def compared(view: Path, files: dict[str, dict[str, Path]]) -> tuple[int, int]:
    """Holds the pixel data, and the syntax they are stored in, of every file against the one that was uploaded."""
    got = [pydicom.dcmread(path) for path in view.rglob("*.dcm")]
    for dataset in got:
        given = pydicom.dcmread(files[dataset.SeriesInstanceUID].pop(dataset.SOPInstanceUID))
        if dataset.file_meta.TransferSyntaxUID != given.file_meta.TransferSyntaxUID:
            raise SystemExit("a file came in another transfer syntax")
        if dataset.get("PixelData") != given.get("PixelData"):
            raise SystemExit("pixel data differ")
        files[dataset.SeriesInstanceUID][dataset.SOPInstanceUID] = Path(given.filename)
    if len(got) != sum(map(len, files.values())):
        raise SystemExit(f"{len(got)} files came, of {sum(map(len, files.values()))}")
    return len(got), sum(path.stat().st_size for path in view.rglob("*.dcm"))


if __name__ == "__main__":
    main()
