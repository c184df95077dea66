"""Each promise of the documentation that something is INVALID, noticed or refused has a test that breaks just that."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT
from gating_findings import PROBLEMS as OF_FINDINGS
from gating_problems import PROBLEMS

TESTS = ROOT / "tests"
GATE, VERIFY = (ROOT / "docs" / f"{name}.md" for name in ("gate", "verify"))

BROKEN = {  # the beginning of a promise in gate.md to what breaks it: rows of the tables of problems, or tests
    "The protocol is another": ["audit/test_run_directory.py -k required"],
    "The log holds no lock": [
        "nothing locked", "locked after the test split was opened", "another protocol locked", "another cohort locked",
        "locked again otherwise",
    ],
    "`harden.json` or `evaluation.json`": [
        "an edited harden.json", "an edited evaluation.json", "hardening not on record", "evaluation not on record",
    ],
    "The test split was looked at more often": [
        "a look too many", "a look that failed, and another", "20 tries", "gating/test_ledger.py -k look",
    ],
    "A file is not the one": [
        "another protocol", "another cohort", "other weights", "other description", "other cases",
        "gating/test_run.py -k one_changed_byte",
    ],
    "The evaluation is of another split": [
        "another split", "other classes", "a moved threshold", "another fusion", "an attack left out",
    ],
    "The attacked cases are not those": [
        "fewer attacked than asked", "more attacked than asked", "none attacked",
        "gating/test_refusals.py -k hand_picked_sample",
    ],
    "A `guarded` release has no outcome": [
        "referral in another mode", "gating/test_refusals.py -k without_referral_under_attack",
    ],
    "A class has no test case": [
        "a missing class", "a missing case", "a case twice", "a case from elsewhere", "a wrong label",
        "a wrong patient",
    ],
    "A probability is not finite": [
        "NaN", "infinity", "negative", "sum of 1.0002", "an answer against its probability",
    ],
    "The counts of `evaluation.json`": [
        "clean_correct", "robust_correct", "attacked", "referred", "n", "robust but wrong when clean",
        "robust but not attacked",
    ],
    "A patient or an image": [
        "a patient in two splits", "an image in two splits", "a copy of a training image",
        "copies of which one was reviewed",
    ],
}  # fmt: skip


def section(path: Path, heading: str) -> str:
    return path.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def bullets(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"^- ", text, flags=re.M)[1:]]


def selects(expression: str) -> bool:
    """Whether `FILE -k WORDS` names a test that is there; words are joined by `or`."""
    file, _, words = expression.partition(" -k ")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    names = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    wanted = words.strip('"').split(" or ") if words else [""]
    return all(any(word in f"{file}::{name}" for name in names) for word in wanted)


@pytest.mark.parametrize("promise", bullets(section(GATE, "What makes a run INVALID")), ids=lambda text: text[:30])
def test_each_way_to_an_invalid_run_is_broken_by_a_test_of_its_own(promise: str) -> None:
    broken = [found for start, found in BROKEN.items() if promise.startswith(start)]
    assert len(broken) == 1, "a promise without a test, or with two"
    rows = {row[1] for row in (*PROBLEMS, *OF_FINDINGS)}
    for name in broken[0]:
        assert name in rows or selects(name), name


def test_no_test_is_listed_for_a_promise_that_is_gone() -> None:
    promises = bullets(section(GATE, "What makes a run INVALID"))
    assert all(any(promise.startswith(start) for promise in promises) for start in BROKEN)


def test_what_is_promised_against_whom_names_tests_that_are_there() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section(VERIFY, "What is promised against whom").splitlines()
        if line.startswith("|")
    ][2:]
    assert len(rows) > 10
    for who, can, noticed, shown in rows:
        expressions = re.findall(r"`([^`]+)`", shown)
        assert expressions or "not " in noticed, (who, can)
        assert all(selects(expression) for expression in expressions), shown
