"""Fixtures shared by all tests: real data where it is present, and a quiet, deterministic torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images and weights; the test is skipped where it is absent."""
    folder = Path(os.environ.get("MEDHARDEN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set MEDHARDEN_TEST_DATA to the folder that holds it")
    return folder
