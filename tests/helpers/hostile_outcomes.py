"""What came of reading hostile files in a process of its own, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Outcomes = dict[tuple[str, str], dict[str, Any]]


def outcomes(*tables: str) -> Outcomes:
    """Every file of the tables, by table and name; see `hostile_reading.py`."""
    script = Path(__file__).parent / "hostile_reading.py"
    done = subprocess.run([sys.executable, str(script), *tables], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(line["table"], line["name"]): line for line in lines}


def assert_refused(outcome: dict[str, Any], kind: str, *, seconds: float, mebibytes: float) -> None:
    """Refused as an error of medharden's, in time and memory, in a text that steers no terminal and has an end."""
    assert kind in outcome["kind"], outcome
    assert outcome["seconds"] < seconds, outcome
    assert outcome["grown"] < mebibytes, outcome
    assert len(outcome["message"]) < 8000, outcome["name"]
    assert outcome["message"].replace("\n", "").isprintable(), outcome["name"]
