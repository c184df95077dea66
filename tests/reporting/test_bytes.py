"""The same records give the same bytes: on another day, in another time zone, under another locale and hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from reporting_records import make_run

from medharden.reporting import render

# Another clock, for all that asks Python for the time.
ELSEWHERE = """
import locale, sys, time
from pathlib import Path
shift = 400 * 86400 + 12345
now, now_ns = time.time, time.time_ns
time.time = lambda: now() + shift
time.time_ns = lambda: now_ns() + shift * 10**9
for name in ("de_DE.UTF-8", "tr_TR.UTF-8", "C"):
    try:
        locale.setlocale(locale.LC_ALL, name)
        break
    except locale.Error:
        pass
from medharden.reporting import render
render(Path(sys.argv[1]))
"""


def test_another_day_place_and_language_give_the_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path, classes=("normal", "\u00e4ndern \u015f\u0131"), examples=(1, 16, 16))
    first = {path: path.read_bytes() for path in render(run)}
    assert {p.name for p in first} >= {"report.html", "report.pdf", "report.json", "model-card.md", "gate.junit.xml"}
    for path in first:
        path.unlink()
    other = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", ELSEWHERE, str(run)], env=os.environ | other, check=True, timeout=300)
    assert {path: path.read_bytes() for path in first} == first
