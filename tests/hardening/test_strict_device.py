"""Hardening and evaluating on a device as strict as a GPU: no tensor out of place, no host that reads each step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HELPERS = Path(__file__).resolve().parent.parent / "helpers"
CASES = (
    "mixed, full, linf",
    "mixed, norm, l2",
    "guarded, lora, linf",
    "guarded, norm, l2",
    "robust, full, linf, three classes",
    "mixed, norm, several findings",
    "guarded, full, l2, several findings",
    "guarded, lora, l2, volumes",
    "mixed, norm, linf, volumes",
)
METHODS = ("carried", "free", "pgd", "trades", "n-fgsm", "fgsm-rs")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each case; in a process of its own, for a device once registered stays."""
    folder = tmp_path_factory.mktemp("strict") / "runs"
    words = [sys.executable, str(HELPERS / "strict_device.py"), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=HELPERS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert tuple(found["cases"]) == CASES
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_on_a_strict_device_comes_to_what_it_does_on_the_processor(seen: dict[str, Any], case: str) -> None:
    there, here = seen["cases"][case]["strict"], seen["cases"][case]["cpu"]
    assert there["subjects"] == here["subjects"]
    assert there["identical"]
    assert there["reads"] > 0  # the counter counts


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_host_and_device_wait_for_each_other_in_no_training_step(seen: dict[str, Any], case: str) -> None:
    there = seen["cases"][case]["strict"]
    assert there["waits"] == [0] * there["steps"]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_nor_do_they_under_another_method_with_every_augmentation(seen: dict[str, Any], method: str) -> None:
    there = seen["methods"][method]
    assert there["waits"] == [0] * there["steps"]
    assert there["steps"] >= 12


@pytest.mark.slow
def test_what_steps_gave_is_read_once_in_many_and_not_in_each(seen: dict[str, Any]) -> None:
    """48 steps more in as many epochs, and not even half as many waits more, those between steps counted."""
    short, long = seen["cases"][seen["long"]]["strict"], seen["longer"]
    assert long["steps"] - short["steps"] == 48
    assert long["reads"] - short["reads"] < 24
