"""Running the command line in a process of its own, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def environment(**more: str) -> dict[str, str]:
    """This process's environment with the checkout importable, one thread and a fixed pseudonym key."""
    fixed = {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "MEDHARDEN_PSEUDONYM_KEY": "a key for tests, sixteen bytes or more",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    return os.environ | fixed | more


def medharden(*arguments: object, cwd: Path, timeout: float = 900, **more: str) -> subprocess.CompletedProcess[str]:
    """`medharden ARGUMENTS` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "medharden", *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_clear(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """An outcome as it should be: its exit code, its words, no traceback."""
    said = result.stderr + result.stdout
    assert result.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
