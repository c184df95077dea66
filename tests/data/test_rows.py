"""Cases that lie in files: they read as tensors do, and are read a part at a time by every stage."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_cohort, tiny_model, tiny_protocol

from medharden import rows as module
from medharden.attacks import run_suite
from medharden.data.store.inputs import Inputs
from medharden.errors import OutputError
from medharden.evaluating import evaluate
from medharden.hardening import fine_tune, harden
from medharden.models import load_hardened
from medharden.protocol import Hardening
from medharden.rows import Overlay, RowFile, Rows, copy_of, joined, parts, read_ahead, select


class Counted(Rows):
    """Ones, and how many parts of them were asked for."""

    asked = 0

    def take(self, rows: Sequence[int]) -> torch.Tensor:
        self.asked += 1
        return torch.ones((len(rows), *self.shape[1:]))


def test_of_parts_one_is_read_ahead_and_no_more() -> None:
    held = Counted((12, 2), torch.float32)
    for number, part in enumerate(parts(held, 2)):
        time.sleep(0.05)  # whoever reads ahead has the time to
        assert part.shape == (2, 2)
        assert held.asked == min(number + 2, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.float64, torch.bfloat16])
def test_rows_in_a_file_read_as_those_of_a_tensor(dtype: torch.dtype) -> None:
    values = (torch.rand(7, 2, 3, 3) * 100).to(dtype)
    held = RowFile(values.shape, dtype)
    assert torch.equal(held[0:7], torch.zeros_like(values))
    held[torch.tensor([5, 1, 2])] = values[torch.tensor([5, 1, 2])]
    held[0:1], held[[3, 4, 6]] = values[0:1], values[[3, 4, 6]]
    assert (len(held), held.dim(), held.shape, held.is_floating_point()) == (
        7,
        4,
        values.shape,
        dtype.is_floating_point,
    )
    for key in (slice(None), slice(2, 5), [6, 0], torch.tensor([3, 3]), torch.arange(7) > 4, torch.tensor([]).long()):
        assert torch.equal(held[key], values[key])
    assert torch.equal(held[-1], values[-1])
    assert torch.equal(torch.cat(list(parts(held, 3))), values)
    assert [len(part) for part in parts(held, 3)] == [len(part) for part in parts(values, 3)] == [3, 3, 1]
    with pytest.raises(IndexError):
        held[7]


def test_an_overlay_holds_what_was_written_and_leaves_what_it_starts_from() -> None:
    base = torch.rand(6, 1, 4, 4)
    below = RowFile(base.shape, base.dtype)
    below[0:6] = base
    first = copy_of(below)
    assert isinstance(first, Overlay)
    first[torch.tensor([4, 1])] = torch.ones(2, 1, 4, 4)
    second = copy_of(first)
    second[1:2] = torch.zeros(1, 1, 4, 4)
    expected = base.clone()
    expected[[4, 1]] = 1
    assert torch.equal(first[0:6], expected)
    expected[1] = 0
    assert torch.equal(second[0:6], expected)
    assert torch.equal(below[0:6], base)
    assert first.written == {1, 4}
    assert torch.equal(select(second, torch.tensor([1, 0, 4]))[0:3], expected[[1, 0, 4]])
    assert torch.equal(select(expected, torch.tensor([1, 0])), expected[[1, 0]])


def test_what_is_read_ahead_comes_in_order_and_an_error_where_it_belongs() -> None:
    threads: set[str] = set()

    def read(number: int) -> int:
        threads.add(threading.current_thread().name)
        if number == 4:
            raise OSError("cut")
        return number * number

    found = read_ahead(read, range(10))
    assert [next(found) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(OSError, match="cut"):
        next(found)
    assert threading.current_thread().name not in threads
    assert list(read_ahead(read, [])) == []


def test_who_reads_ahead_computes_alone_and_others_with_as_many_threads_as_before() -> None:
    before, elsewhere = torch.get_num_threads(), list[int]()
    torch.set_num_threads(2)
    try:
        found = read_ahead(lambda _: torch.get_num_threads(), range(5))
        assert next(found) == 1
        assert torch.get_num_threads() == 2
        later = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert elsewhere == [2]
        assert list(found) == [1, 1, 1, 1]
    finally:
        torch.set_num_threads(before)


def test_a_full_temporary_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    held = RowFile((2, 4), torch.float32)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "pwrite", full)
    with pytest.raises(OutputError, match=r"No space left on device.*TMPDIR"):
        held[0:1] = torch.ones(1, 4)


def test_a_suite_on_cases_in_a_file_comes_to_the_same_as_in_memory(tmp_path: Path) -> None:
    protocol = tiny_protocol()
    cohort = tiny_cohort(tmp_path, protocol)
    test = cohort.indices("test")[:50]
    inputs, labels = cohort.batch(test)
    model = tiny_model(tmp_path, cohort=cohort)
    given = {"threat": protocol.input_threat, "suite": protocol.suite.attacks, "seed": 3, "batch_size": 16}
    memory = run_suite(model, inputs, labels, **given)
    file = run_suite(model, cohort.stream(test), labels, **given)
    assert memory.won_by == file.won_by
    assert torch.equal(memory.adversarial, file.adversarial[0:50])
    assert isinstance(file.adversarial, Overlay)
    assert any(name not in ("", "clean") for name in file.won_by)


def test_no_stage_reads_more_cases_at_once_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = tiny_protocol()
    cohort = tiny_cohort(tmp_path, protocol)
    original = tiny_model(tmp_path, cohort=cohort)
    most, ordinary = [0], Inputs.read

    def watched(self: Inputs, rows: np.ndarray) -> np.ndarray:
        most[0] = max(most[0], len(rows))
        return ordinary(self, rows)

    monkeypatch.setattr(Inputs, "read", watched)
    fields = protocol.model_dump()
    fields["hardening"] |= {"epochs": 2}
    protocol = type(protocol).model_validate(fields)
    fine_tune(tiny_model(tmp_path), cohort, Hardening(epochs=1, min_steps=1, batch_size=25), seed=0)
    harden(original, cohort, protocol, tmp_path / "run")
    assert most == [32], "the cases on which the clean path is compared before and after"
    most[0] = 0
    evaluate(load_hardened(tmp_path / "run", arch="python:foreign_networks:TinyNet"), cohort, protocol,
             tmp_path / "run", original=original, batch_size=20)  # fmt: skip
    assert most[0] == max(20, 64), "the cases whose range is checked at once"


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_parts_are_joined_as_one(shape: tuple[int, ...]) -> None:
    parts_of = [torch.randn(n, *shape, dtype=torch.float64) for n in (4, 4, 1)]
    whole = joined(iter(parts_of), 9)
    assert torch.equal(whole, torch.cat(parts_of))
    assert whole.dtype == torch.float64
