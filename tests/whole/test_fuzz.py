"""Two minutes of fuzzing: readers of files of others end in an answer or an error of our own, in bounds."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from fuzz_targets import NAMES, targets
from fuzzing import Target, fuzz

from medharden.errors import DataError

SECONDS = 120 / len(NAMES)
INPUTS = 250


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in targets(tmp_path_factory.mktemp("seeds"))}


def test_every_target_is_tried(known: dict[str, Target]) -> None:
    assert tuple(known) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_changed_in_a_file_the_outcome_is_an_answer_or_an_error_of_our_own(
    known: dict[str, Target], name: str
) -> None:
    outcomes = fuzz(known[name], INPUTS, seed=len(name), seconds=SECONDS)
    assert outcomes.inputs > 5
    assert outcomes.accepted or outcomes.refused


def test_the_harness_sees_what_it_looks_for() -> None:
    def defect(data: bytes, folder: Path) -> object:
        if len(data) % 7 == 3:
            raise IndexError
        raise DataError("refused")

    with pytest.raises(IndexError):
        fuzz(Target("with a defect", (b"some bytes",), defect), 300)

    def large(data: bytes, folder: Path) -> object:
        with mmap.mmap(-1, 3 * 2**29) as memory:  # given back at once, whatever malloc was told to keep
            for page in range(0, len(memory), mmap.PAGESIZE):
                memory[page] = 1

    with pytest.raises(AssertionError, match="bytes of memory for"):
        fuzz(Target("too much memory", (b"some bytes",), large), 1)
    with pytest.raises(AssertionError):
        fuzz(Target("says nothing", (b"some bytes",), _silent), 5)


def _silent(data: bytes, folder: Path) -> object:
    raise DataError("")
