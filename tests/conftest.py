"""Fixtures shared by all tests: real data where it is present, and a quiet, deterministic torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# one thread: the tensors are tiny, and several test runs on one machine do not starve each other
torch.set_num_threads(1)

# a shell that starts the tests in the background has them, and what they start, ignore Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images and weights; the test is skipped where it is absent."""
    folder = Path(os.environ.get("MEDHARDEN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set MEDHARDEN_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(autouse=True)
def _fresh_console() -> Iterator[None]:
    """A command that a test ran in this process asked for silence, or holds that test's output: none goes on."""
    yield
    console = sys.modules.get("medharden.cli.console")
    if console is not None:
        console.out.json = console.out.quiet = False
        console.out.__dict__.pop("console", None)  # made once a process, over the standard output of that moment
