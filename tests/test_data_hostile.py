"""Image files that mean harm: each is refused with its reason, soon, in bounded memory; what is odd is read."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import hostile_images
import numpy as np
import pytest
from conftest import ROOT
from tiny import tiny_protocol

from medharden.data.archive import list_archive
from medharden.data.formats import read_file
from medharden.data.limits import Room
from medharden.data.stored import quiet_readers
from medharden.errors import DataError

SECONDS = 10.0
MEMORY = 2**30


def read(folder: Path, name: str, data: bytes) -> object:
    """A file as a cohort's reader meets it."""
    path = folder / name
    path.write_bytes(data)
    with quiet_readers():
        if name.endswith(".npz"):
            listing = list_archive(path, tiny_protocol(), lambda text: "case", 2**28)
            with Room().file() as hold:
                return listing.read(listing.entries[0], hold)
        return read_file(path, 3 if ".nii" in name or "_3d" in name else 2)


@pytest.mark.parametrize("name", hostile_images.REFUSED)
def test_a_file_that_is_damaged_or_lies_is_refused_with_its_reason_and_soon(tmp_path: Path, name: str) -> None:
    make, reason = hostile_images.REFUSED[name]
    data = make()
    began = time.perf_counter()
    with pytest.raises(DataError, match=reason) as refused:
        read(tmp_path, name, data)
    assert time.perf_counter() - began < SECONDS
    said = str(refused.value)
    assert name not in said
    assert said.isprintable()


@pytest.mark.parametrize("name", hostile_images.READ)
def test_a_file_that_is_odd_and_whole_is_read(tmp_path: Path, name: str) -> None:
    image = read(tmp_path, name, hostile_images.READ[name]())
    assert np.isfinite(image.values).all()  # type: ignore[attr-defined]


def test_none_of_them_takes_more_memory_than_a_file_may(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "import hostile_images, test_data_hostile as t\n"
        "folder = Path(sys.argv[1])\n"
        "t.read(folder, 'a.png', hostile_images.png_file(hostile_images.GREY))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for name, (make, _) in hostile_images.REFUSED.items():\n"
        "    try:\n        t.read(folder, name, make())\n    except t.DataError:\n        pass\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)\n"
    )
    paths = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", paths + code, str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout.split()[-1]) < MEMORY
