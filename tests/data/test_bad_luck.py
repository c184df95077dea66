"""What befalls files while a cohort is read, and a filesystem that can do less than others: said, and nothing lost."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from data_helpers import KEY, class_folders, protocol

from medharden.data import load_cohort
from medharden.data.store import reading, segment, worker
from medharden.errors import DataError, OutputError
from medharden.protocol import Input

FATES = {
    "gone": lambda path: path.unlink(),
    "a folder in its place": lambda path: (path.unlink(), path.mkdir()),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "cut short": lambda path: os.truncate(path, 20),
    "empty": lambda path: os.truncate(path, 0),
}


def befallen(monkeypatch: pytest.MonkeyPatch, path: Path, fate: str) -> None:
    """Has a file meet its fate once all files are listed and the first of them is being read."""
    made_of, met = reading.made_of, []

    def late(image, spec):
        if not met:
            met.append(1)
            FATES[fate](path)
        return made_of(image, spec)

    monkeypatch.setattr(reading, "made_of", late)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("fate", FATES)
def test_a_file_that_is_lost_while_others_are_read_is_a_case_that_can_not_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str, cached: bool
) -> None:
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache" if cached else None
    lost = root / "dog" / "7.png"
    befallen(monkeypatch, lost, fate)
    with pytest.raises(DataError, match="1 of 20 cases can't be used") as caught:
        load_cohort(root, protocol(), key=KEY, cache=kept, workers=1)
    (problem,) = caught.value.problems
    assert problem.label == "dog"
    assert "7.png" not in str(caught.value) + problem.case + problem.reason
    monkeypatch.undo()
    whole = load_cohort(class_folders(tmp_path / "again"), protocol(), key=KEY)
    if lost.is_dir():
        lost.rmdir()
    lost.unlink(missing_ok=True)
    lost.write_bytes((tmp_path / "again" / "dog" / "7.png").read_bytes())
    decoded = []
    made_of = reading.made_of
    monkeypatch.setattr(reading, "made_of", lambda image, spec: decoded.append(1) or made_of(image, spec))
    again = load_cohort(root, protocol(), key=KEY, cache=kept)
    assert again.record == whole.record
    assert len(decoded) == (1 if cached else 20), "what had been read is kept"


def test_where_cases_may_be_left_out_the_one_that_was_lost_is_named_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    befallen(monkeypatch, root / "dog" / "7.png", "gone")
    cohort = load_cohort(root, protocol(input=Input(unusable="exclude")), key=KEY, workers=1)
    assert len(cohort.cases) == 19
    (left,) = cohort.record.excluded
    assert "can't be read" in left.reason
    assert "data.excluded" in {f.code for f in cohort.record.findings}


def test_a_file_that_is_lost_under_a_process_that_decodes_is_one_case_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    monkeypatch.setattr(reading, "_TRIED", 1)
    monkeypatch.setattr(reading, "_WORTH_PROCESSES", -1.0)
    befallen(monkeypatch, root / "dog" / "7.png", "gone")
    with pytest.raises(DataError, match="1 of 20 cases can't be used"):
        load_cohort(root, protocol(), key=KEY, workers=2)


def test_a_disk_that_gives_an_input_output_error_is_one_case_and_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = class_folders(tmp_path / "data")
    read_parts = worker.read_parts

    def broken(paths, spec, hold):
        if paths[0][0].name == "7.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(paths[0][0]))
        return read_parts(paths, spec, hold)

    monkeypatch.setattr("medharden.data.sources.folder.read_parts", broken)
    with pytest.raises(DataError, match="2 of 20 cases can't be used") as caught:
        load_cohort(root, protocol(), key=KEY)
    assert all("7.png" not in p.reason for p in caught.value.problems)


def test_a_filesystem_without_mmap_holds_a_store_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders(tmp_path / "data")
    plain = load_cohort(root, protocol(), key=KEY)

    def no_device(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", no_device)
    monkeypatch.setattr(np, "memmap", no_device)
    for _ in range(2):
        cohort = load_cohort(root, protocol(), key=KEY, cache=tmp_path / "cache")
        assert cohort.record == plain.record
        np.testing.assert_array_equal(cohort.inputs, plain.inputs)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_disk_that_fills_up_under_the_journal_or_at_the_end_is_said_and_what_was_kept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    root, kept = class_folders(tmp_path / "data"), tmp_path / "cache"
    real, left = getattr(os, call), [9 if call == "write" else 0]

    def full(handle, *rest):
        if call == "fsync" or "cases-" in os.readlink(f"/proc/self/fd/{handle}"):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(segment.os, call, full)
        with pytest.raises(OutputError, match=r"No space left on device.*--cache"):
            load_cohort(root, protocol(), key=KEY, cache=kept)
    decoded = []
    made_of = reading.made_of
    monkeypatch.setattr(reading, "made_of", lambda image, spec: decoded.append(1) or made_of(image, spec))
    load_cohort(root, protocol(), key=KEY, cache=kept)
    assert len(decoded) == (11 if call == "write" else 0)


def test_a_case_that_can_no_longer_be_read_from_its_store_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = load_cohort(class_folders(tmp_path / "data"), protocol(), key=KEY, cache=tmp_path / "cache")

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(DataError, match=r"can't be read from the cache: Input/output error.*cache remove"):
        cohort.batch([0])
