"""Five kills at drawn moments of any stage; `tests/benchmarks/kills.py` is fifty."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import environment

HELPERS = Path(__file__).resolve().parent.parent / "helpers"


@pytest.mark.slow
def test_five_kills_at_any_moment_end_in_the_same_weights_answers_and_verdict(tmp_path: Path) -> None:
    words = [sys.executable, str(HELPERS / "killed.py"), str(tmp_path / "kills"), "--kills", "5", "--cases", "75"]
    done = subprocess.run(
        [*words, "40", "20"], capture_output=True, text=True, cwd=HELPERS, env=environment(), check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    toll = json.loads(done.stdout.splitlines()[-1])
    assert sum(toll["kills"].values()) == 5
    assert toll["alike"] == toll["runs"] >= 1
    assert not toll["wrong"]
