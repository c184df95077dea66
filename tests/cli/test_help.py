"""What `--help` says: two examples a command, each of which would be taken as it stands, and groups of options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from command import medharden

from medharden.cli.app import app
from medharden.cli.examples import EXAMPLES


def commands() -> dict[str, Any]:
    """Every command by its name below `medharden`."""
    found: dict[str, Any] = {}

    def below(command: Any, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[name.strip()] = command
        for word, part in (inner or {}).items():
            below(part, f"{name} {word}")

    below(typer.main.get_command(app), "")
    return found


def examples(command: Any) -> list[str]:
    return [line for line in (command.epilog or "").splitlines() if line.startswith("medharden ")]


def test_no_examples_are_kept_of_a_command_that_is_not_there() -> None:
    assert set(EXAMPLES) <= set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_has_two_examples_that_would_be_taken_as_they_stand(name: str) -> None:
    lines = examples(commands()[name])
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert " ".join(words[1:]).startswith(name), line
        commands()[name].make_context(name, words[1 + len(name.split()) :])


def test_the_help_of_harden_shows_its_groups_and_examples_whole_at_80_columns(tmp_path: Path) -> None:
    text = medharden("harden", "--help", cwd=tmp_path, COLUMNS="80").stdout
    groups = [text.index(f"─ {group} ─") for group in ("Data", "Run", "Model", "Machine", "Output")]
    loose = text[text.index("─ Options ─") : groups[0]]
    assert re.findall(r"--[a-z-]+", loose) == ["--help"]
    assert groups == sorted(groups)
    assert "Examples:" in text
    assert "…" not in text
    assert "--protocol chest-xray-binary" in " ".join(text.split())
