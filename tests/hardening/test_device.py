"""Which device `--device auto` takes, and what it says of it."""

from __future__ import annotations

import pytest
import torch

from medharden.cli import runtime
from medharden.cli.console import out
from medharden.errors import RunError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(type(out), "say", lambda self, text: lines.append(str(text)))
    return lines


def present(monkeypatch: pytest.MonkeyPatch, *, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(runtime, "_require", lambda device: None)


@pytest.mark.parametrize(
    ("cuda", "mps", "float64", "device"),
    [
        (True, True, False, "cuda"),
        (True, False, True, "cuda"),
        (False, True, False, "mps"),
        (False, True, True, "cpu"),
        (False, False, False, "cpu"),
    ],
)
def test_auto_takes_cuda_then_mps_then_the_cpu_and_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, said: list[str], cuda: bool, mps: bool, float64: bool, device: str
) -> None:
    present(monkeypatch, cuda=cuda, mps=mps)
    assert runtime.device_of("auto", float64=float64) == device
    assert len(said) == 1
    assert said[0].startswith(f"device: {device} (")


def test_a_device_that_is_named_is_taken_in_silence_and_one_that_is_not_there_refused(said: list[str]) -> None:
    assert runtime.device_of("cpu") == "cpu"
    assert not said
    with pytest.raises(RunError, match="no device 'nonsense'"):
        runtime.device_of("nonsense")
