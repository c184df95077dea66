"""The table of forms in docs/models.md: each row names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 5


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = text[text.index("| Form | Recognised by |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def every_test() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")}
    return found


def test_each_form_that_is_listed_has_a_test_of_its_own() -> None:
    listed, there = rows(), every_test()
    assert len(listed) > 20
    assert all(len(row) == COLUMNS for row in listed)
    named = [row[-1].strip("`") for row in listed]
    assert [name for name in named if name not in there] == []
    assert len(set(named)) == len(named)


def test_each_form_says_what_is_read_or_what_is_refused() -> None:
    for form, recognised, read, refused, _ in rows():
        assert form, "a form has a name"
        assert recognised, form
        assert (read, refused) != ("–", "–"), form
