"""The benchmark of a GPU, without one: what it says there, and its table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import gpu


def test_without_a_gpu_nothing_is_measured_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--work", str(tmp_path / "work")])
    gpu.main()
    assert "no GPU is here: nothing was measured" in capsys.readouterr().out
    assert not (tmp_path / "work").exists()


def test_an_ordinary_and_a_hardening_step_are_timed_and_shown_in_one_table(tmp_path: Path) -> None:
    sizes = gpu.Sizes(side=24, cases=40, batch=4, networks=("test_resnet",), steps=2)
    settings = gpu.protocol_of(sizes.side, sizes.batch)
    data = gpu.write_cases(tmp_path / "data", sizes.cases, sizes.side)
    cohort, rows = gpu.decoding(data, settings, sizes.cases, tmp_path)
    rows += list(gpu.steps("test_resnet", "fp32", cohort, settings, "cpu", sizes))
    assert [row.what for row in rows[2:]] == ["an ordinary step", "a hardening step"]
    assert all(row.rate > 0 for row in rows)
    assert rows[3].said == f"{rows[2].rate / rows[3].rate:.2f} times"
    assert len({line.count("|") for line in gpu.table(rows).splitlines()}) == 1


def test_what_no_time_is_left_for_is_left_out_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = gpu.Sizes(side=24, cases=100, batch=8, networks=("a", "b"), steps=2)
    monkeypatch.setattr(gpu, "steps", lambda *given: iter([gpu.Row("a step")]))
    monkeypatch.setattr(gpu, "suite", lambda *given: pytest.fail("no time was left"))
    monkeypatch.setattr(gpu.Clock, "left", lambda self: -1.0)
    rows = list(gpu.measure("cpu", sizes, tmp_path, gpu.Clock(0)))
    assert rows[-1].said == "9 parts: no time was left"
