"""Tries mutants of the gate and of the records against their tests, in an order drawn from a seed.

    mutmut run 'medharden.gating.words.*'         # in a copy of the checkout: makes all mutants, tries a few
    python tests/benchmarks/mutants.py COPY --count 600

The copy's `pyproject.toml` says what mutmut is to change:

    [tool.mutmut]
    source_paths = ["medharden"]
    only_mutate = ["medharden/gating/*", "medharden/record/*"]
    also_copy = ["protocols", "docs", "README.md", "CHANGELOG.md"]
    pytest_add_cli_args_test_selection = ["tests/gating/test_gating.py"]

mutmut itself runs all tests anew for each mutant. Nearly every mutant of the gate changes a decision that was reviewed
(`tests/gating/test_goldens.py`), which is seen in a tenth of a second here; pytest runs for what is left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

SEED = 20250101
LIMIT_SECONDS = 900  # a mutant that does not come back by then counts as killed
SLOW = "not command and not second_run and not writers and not process and not light_and_fast"


def names_of(mutants: Path) -> list[str]:
    """All mutants, in the seed's order."""
    files = [*mutants.glob("medharden/gating/*.meta"), *mutants.glob("medharden/record/*.meta")]
    names = sorted(name for file in files for name in json.loads(file.read_text())["exit_code_by_key"])
    random.Random(SEED).shuffle(names)
    return names


def late(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError


def places(mutants: Path) -> list[str]:
    """Where the mutants, their tests and what those share are imported from."""
    return [str(mutants), *(str(mutants / "tests" / name) for name in ("helpers", "gating"))]


def changes_a_decision(name: str) -> bool:
    """Whether a decision or the reasons of one are not as reviewed under this mutant, or can't be made."""
    import test_goldens as goldens

    decisions, reasons = goldens.reviewed("decisions"), goldens.reviewed("reasons")
    os.environ["MUTANT_UNDER_TEST"] = name
    signal.alarm(LIMIT_SECONDS)
    try:
        return any(goldens.plain(made()) != decisions[key] for key, made in goldens.DECIDED.items()) or any(
            goldens.reasons(made()) != reasons[key] for key, made in goldens.REASONS.items()
        )
    except Exception:
        return True
    finally:
        signal.alarm(0)
        os.environ["MUTANT_UNDER_TEST"] = ""


def fails_a_test(name: str, mutants: Path) -> bool:
    """Whether a test of the gate or of the records fails under this mutant."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        SLOW,
        "tests/gating",
        "tests/record",
    ]
    variables = os.environ | {"MUTANT_UNDER_TEST": name, "PYTHONPATH": os.pathsep.join(places(mutants))}
    try:
        done = subprocess.run(
            command, cwd=mutants, env=variables, capture_output=True, timeout=LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def main() -> None:
    """Prints each survivor, and the counts last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--count", type=int, help="how many, from the start of the order; all by default")
    chosen = parser.parse_args()
    mutants = (chosen.copy / "mutants").resolve()
    sys.path[:0] = places(mutants)
    os.chdir(mutants)
    os.environ["MUTANT_UNDER_TEST"] = ""
    signal.signal(signal.SIGALRM, late)
    if changes_a_decision("") or fails_a_test("", mutants):
        sys.exit("the tests fail without a mutant")
    found: Counter[str] = Counter()
    for name in names_of(mutants)[: chosen.count]:
        killed = changes_a_decision(name) or fails_a_test(name, mutants)
        found["killed" if killed else "survived"] += 1
        if not killed:
            print(name, flush=True)
    print(dict(found))


if __name__ == "__main__":
    main()
