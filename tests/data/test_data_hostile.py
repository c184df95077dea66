"""Hostile, damaged and odd image files: refused with their reason, within their share of memory, or read in full."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_helpers import KEY, class_folders, protocol, sized
from hostile_images import READ, REFUSED
from image_makers import GREY, flipped, nifti_file, npy, npz_file, png_file, zipped
from typer.testing import CliRunner

from medharden.data import load_cohort
from medharden.data.formats.files import read_file
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.limits import Room, room_for
from medharden.data.sources.archive import list_archive
from medharden.errors import DataError, ProtocolError
from medharden.protocol import Input
from medharden.sizes import MAX_DECODED, parse_bytes, shown_bytes

SLACK = 96 * 2**20  # bytes that Python's and the libraries' own objects may take beside what is counted


def read(path: Path, limit: int = MAX_DECODED) -> StoredImage | None:
    """Through the ordinary door; an archive has its listing alone."""
    name = path.name
    with quiet_readers(), Room(limit).file() as hold:
        if name.endswith(".npz"):
            list_archive(path, protocol(), lambda text: text, 2**32)
            return None
        return read_file(path, 3 if ".nii" in name or "_3d" in name else 2, hold)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_or_claims_too_much_is_refused_with_its_reason(tmp_path, name):
    make, reason = REFUSED[name]
    data = make()
    assert len(data) < 2**20
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert re.search(reason, str(caught.value)), str(caught.value)
    assert name not in str(caught.value)


@pytest.mark.parametrize("name", READ)
def test_what_is_odd_but_whole_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(READ[name]())
    read(tmp_path / name)


def test_no_flipped_bit_of_a_compressed_volume_changes_a_voxel_unseen(tmp_path):
    whole = zipped(nifti_file((5, 4, 3)))
    (tmp_path / "a.nii.gz").write_bytes(whole)
    before, path = read(tmp_path / "a.nii.gz"), tmp_path / "b.nii.gz"
    refused = 0
    for place in range(10, len(whole)):  # before that lie a time and other fields that no voxel depends on
        path.write_bytes(flipped(whole, place, place % 8))
        try:
            assert read(path).pixels == before.pixels
        except DataError:
            refused += 1
    assert refused >= len(whole) - 11  # the last byte of deflated data may have bits that mean nothing


def test_no_flipped_bit_of_a_png_is_let_through(tmp_path):
    whole, path = png_file(GREY[:9, :7].copy()), tmp_path / "a.png"
    for place in range(len(whole)):
        path.write_bytes(flipped(whole, place, place % 8))
        with pytest.raises(DataError):
            read(path)


def test_no_flipped_bit_in_an_array_of_an_archive_is_let_through(tmp_path):
    whole = npz_file()
    images = list_archive_arrays(tmp_path / "a.npz", whole)
    for place in range(40, whole.index(b"PK\1\2"), 7):
        try:
            again = list_archive_arrays(tmp_path / "b.npz", flipped(whole, place, place % 8))
        except DataError:
            continue
        assert again == images  # a flip in the time or another field that no value depends on


def list_archive_arrays(path: Path, data: bytes) -> list[bytes]:
    path.write_bytes(data)
    listing = list_archive(path, protocol(), lambda text: text, 2**32)
    with Room().file() as hold:
        return [listing.read(entry, hold).values.tobytes() for entry in listing.entries]


def test_a_pipe_in_the_data_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="no plain file"):
        read(tmp_path / "a.png")


# --- the limit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count"),
    [("1073741824", 2**30), ("512MiB", 2**29), ("2 GiB", 2**31), ("1.5gib", 3 * 2**29), ("3kB", 3000), (7, 7)],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "0", "-5", "GiB", "1e9", "2 gigs", "0.0001KiB", "١٢", "9" * 30])
def test_what_is_no_size_is_an_error(text):
    with pytest.raises(ValueError, match="expected a number of bytes"):
        parse_bytes(text)


def test_sizes_are_shown_in_the_largest_unit():
    assert [shown_bytes(n) for n in (7, 2048, 2**30, 3 * 2**39)] == ["7 bytes", "2 KiB", "1 GiB", "1.5 TiB"]


def test_a_file_that_needs_more_than_the_limit_names_the_option(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_file(np.zeros((600, 600), np.uint8)))
    with pytest.raises(DataError, match=r"more than the 1 MiB that one file may take \(raise --max-decoded"):
        read(path, 2**20)
    assert read(path, 2**22).values.shape == (1, 600, 600)


def test_a_limit_below_what_the_protocols_input_needs_is_an_error_of_the_protocol():
    with pytest.raises(ProtocolError, match=r"the protocol's input\.size needs .* at least"):
        room_for(2**20, Input(size=(224, 224)))
    assert room_for(2**22, Input(size=(224, 224))).limit == 2**22
    with pytest.raises(ProtocolError):
        room_for(MAX_DECODED, Input(size=(100_000, 100_000)))


def test_one_file_beyond_the_limit_is_one_problem_of_the_cohort(tmp_path):
    class_folders(tmp_path)
    (tmp_path / "cat" / "big.png").write_bytes(png_file(np.zeros((900, 900), np.uint8)))
    with pytest.raises(DataError, match="needs 6") as caught:
        load_cohort(tmp_path, protocol(), key=KEY, max_decoded=2**20)
    assert len(caught.value.problems) == 1
    cohort = load_cohort(tmp_path, sized(8, 8, unusable="exclude"), key=KEY, max_decoded=2**20)
    assert len(cohort.cases) == 20


def test_an_archive_is_one_file_and_its_cases_count_too(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(npz_file({"train_images.npy": npy(np.zeros((12, 300, 300), np.uint8))}))
    with pytest.raises(DataError, match=r"unpacks to 1\.03 MiB and 24 cases, more than one file may become"):
        load_cohort(path, protocol(), key=KEY, max_decoded=2**20)
    many = npz_file({"train_images.npy": npy(np.zeros((400_000, 1, 1), np.uint8))})
    assert len(many) < 10_000
    path.write_bytes(many)
    with pytest.raises(DataError, match="400012 cases, more than one file may become"):
        load_cohort(path, protocol(), key=KEY)


def test_the_command_line_takes_sizes_and_refuses_others():
    from medharden.cli.app import app

    commands = ("inspect --data x", "harden m --data x", "evaluate r --data x", "attack m --data x --write y")
    for command in (*commands, "verify r", "protocol plan demo"):
        done = CliRunner().invoke(app, [*command.split(), "--max-decoded", "much"])
        assert done.exit_code == 2
        assert "512MiB" in done.output


def test_the_readers_together_never_hold_more_than_the_limit():
    room, held, most, lock = Room(100), [0], [0], threading.Lock()

    def work(need: int) -> None:
        for _ in range(20):
            with room.file() as hold:
                hold.take(need)
                with lock:
                    held[0] += need
                    most[0] = max(most[0], held[0])
                time.sleep(0.0005)
                with lock:
                    held[0] -= need

    threads = [threading.Thread(target=work, args=(need,)) for need in (100, 60, 50, 30, 30, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 50 <= most[0] <= 100


def test_a_file_gives_back_what_it_held_even_if_it_fails():
    room = Room(100)
    for _ in range(3):
        with room.file() as hold:
            hold.take_all()
            with pytest.raises(DataError, match="holds no values"):
                hold.take_values((0, 5), 1)
    with room.file() as hold:
        hold.take(100)


MEASURE = """
import json, resource, sys, time
from pathlib import Path
import image_makers as make
import numpy as np
from data_helpers import KEY
from medharden.data.formats.limits import room_for
from medharden.data.store.keeping import Store
from medharden.data.store.reading import read_cases
from medharden.data.sources.folder import Entry, Listing
from medharden.data.formats.files import read_file
from medharden.protocol import Input, Intensity
import torch

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

dims, limit, workers, paths = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
spec = Input(dims=dims, size=(32,) * dims, intensity=Intensity(mode="percentile", low=0, high=100))
entries = tuple(Entry(text=p, label="a", slices=(Path(p),)) for p in paths)
listing = Listing("folder", ("a", "b"), entries, lambda e, hold: read_file(e.path, dims, hold))
torch.ones(8).sum()
before, start = peak(), time.monotonic()
results = read_cases(listing, spec, Store(), room=room_for(limit, spec), workers=workers, progress=None)
reasons = [r if isinstance(r, str) else "" for r in results]
print(json.dumps({"bytes": peak() - before, "seconds": time.monotonic() - start, "reasons": reasons}))
"""


def measured(dims: int, limit: int, workers: int, paths: list[Path]) -> dict:
    """What reading takes in a process of its own."""
    arguments = [str(n) for n in (dims, limit, workers)] + [str(p) for p in paths]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}  # what is freed is given back
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True, timeout=300,
        cwd=Path(__file__).parent, env={**variables, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_volume_takes_eight_bytes_a_voxel_and_four_readers_no_more_than_the_limit(tmp_path):
    shape = (160, 320, 320)
    voxels = (np.arange(np.prod(shape)) % 997).astype("<i2")
    paths = [tmp_path / f"{n}.nii" for n in range(4)]
    for path in paths:
        path.write_bytes(nifti_file(shape, data=voxels.tobytes()))
    one = measured(3, 2**30, 1, paths[:1])
    assert one["reasons"] == [""]
    assert one["bytes"] < 8 * voxels.size + SLACK
    four = measured(3, 10 * voxels.size, 4, paths)
    assert four["reasons"] == [""] * 4
    assert four["bytes"] < 10 * voxels.size + SLACK


@pytest.mark.slow
def test_the_largest_that_a_megabyte_may_become_takes_less_than_a_gibibyte_and_ten_seconds(tmp_path):
    side = 11_000
    rows = np.zeros((side, side + 1), np.uint8)
    rows[0, 1:9], rows[-1, -9:] = 200, 7
    (tmp_path / "a.png").write_bytes(png_file(GREY, idat=zlib.compress(rows.tobytes(), 1), size=(side, side)))
    assert (tmp_path / "a.png").stat().st_size < 2**20
    del rows
    found = measured(2, MAX_DECODED, 2, [tmp_path / "a.png"])
    assert found["reasons"] == [""]
    assert found["bytes"] < 2**30
    assert found["seconds"] < 30  # a third of that on an idle core
