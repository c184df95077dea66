"""The words against the code: what the documentation says of commands, fields, files and codes is so."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import typer
import yaml
from conftest import ROOT
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import medharden
from medharden import __version__
from medharden.cli.app import app
from medharden.cli.verdicts import EXIT_CODES
from medharden.errors import Interrupted, MedHardenError
from medharden.protocol import Protocol, parse_protocol, shipped_protocols
from medharden.reporting import source as report_source

DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def rows(part: str) -> Iterator[list[str]]:
    """The cells of every table row, headings and rules included."""
    for line in part.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def bare(cell: str) -> str:
    return cell.strip("`")


# --- protocols ---------------------------------------------------------------------------------------------------


def inner_model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The schema class inside an annotation, and whether it is in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) in (tuple, list, Union, types.UnionType, Annotated):
        listed = get_origin(annotation) in (tuple, list)
        for part in get_args(annotation):
            model, below = inner_model(part)
            if model is not None:
                return model, listed or below
    return None, False


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that a protocol file may set, with its default as YAML would give it."""
    for name, field in model.model_fields.items():
        below, listed = inner_model(field.annotation)
        if below is None or listed:
            default = field.default
            if isinstance(default, tuple):
                default = [d.model_dump(mode="json") if isinstance(d, BaseModel) else d for d in default]
            yield f"{prefix}{name}", default
        if below is not None:
            yield from fields(below, f"{prefix}{name}{'[]' if listed else ''}.")


def documented_fields() -> dict[str, str]:
    part = text(DOCS / "protocols.md").split("\n## Fields\n")[1].split("\n## ")[0]
    return {bare(cells[0]): cells[1] for cells in rows(part) if cells[0].startswith("`")}


def test_the_schema_is_walked_down_to_its_leaves() -> None:
    names = {name for name, _ in fields(Protocol)}
    assert {"seed", "hardening.teacher.weight", "suite.attacks[].steps", "input.intensity.low"} <= names


@pytest.mark.parametrize(("name", "default"), list(fields(Protocol)), ids=lambda v: v if isinstance(v, str) else "")
def test_every_protocol_field_is_documented_with_its_default(name: str, default: Any) -> None:
    cell = documented_fields()[name]
    if default is PydanticUndefined:
        assert cell == "required"
    else:
        assert yaml.safe_load(bare(cell)) == default


def test_no_protocol_field_is_documented_that_is_not_there() -> None:
    assert set(documented_fields()) == {name for name, _ in fields(Protocol)}


def test_every_shipped_protocol_is_listed() -> None:
    part = text(DOCS / "protocols.md").split("\n## Shipped protocols\n")[1].split("\n## ")[0]
    assert {bare(cells[0]) for cells in rows(part) if cells[0].startswith("`")} == set(shipped_protocols())


def test_protocols_in_the_docs_are_valid() -> None:
    found = [
        (page.name, block)
        for page in PAGES
        for block in re.findall(r'```yaml title="[^"]+"\n(.*?)```', text(page), re.S)
    ]
    assert found
    for name, block in found:
        assert parse_protocol(block, name).margins_justified


# --- the command line --------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its full name."""

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
            return
        for word, part in inner.items():
            yield from below(part, f"{name} {word}")

    yield from below(typer.main.get_command(app), "medharden")


def command_sections() -> dict[str, str]:
    parts = re.split(r"^## ", text(DOCS / "cli.md"), flags=re.M)[1:]
    return {bare(part.split("\n", 1)[0]): part for part in parts}


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_command_is_documented_with_its_options_and_their_defaults(name: str, command: Any) -> None:
    documented = {cells[0]: cells[1] for cells in rows(command_sections()[name])}
    shown = {}
    for parameter in command.params:
        if parameter.name == "help":
            continue
        options = [o for o in parameter.opts if o.startswith("-")]
        title = ", ".join(f"`{o}`" for o in options) or f"`{(parameter.metavar or parameter.name).strip('[]').upper()}`"
        if parameter.required:
            shown[title] = "required"
        elif parameter.default is None:
            shown[title] = "none"
        else:
            shown[title] = "off" if parameter.default is False else f"`{parameter.default}`"
    documented = {k: v for k, v in documented.items() if k.startswith("`")}
    assert documented == shown


def test_no_command_is_documented_that_is_not_there() -> None:
    documented = {title for title in command_sections() if title.startswith("medharden ")}
    assert documented == {name for name, _ in commands()}


def test_the_options_of_the_program_itself_are_documented() -> None:
    top = text(DOCS / "cli.md").split("\n## ")[0]
    for parameter in typer.main.get_command(app).params:
        assert all(f"`{option}`" in top or f" {option}`" in top for option in parameter.opts), parameter.name


@pytest.mark.parametrize("page", [DOCS / "cli.md", ROOT / "README.md", DOCS / "gate.md"], ids=lambda p: p.name)
def test_exit_codes_are_as_documented(page: Path) -> None:
    known = {str(verdict): code for verdict, code in EXIT_CODES.items()}
    words = set()
    for cells in rows(text(page)):
        found = [v for v in known if any(re.match(rf"{v}\b", cell) for cell in cells)]
        if found and any(cell.isdecimal() for cell in cells):
            assert str(known[found[0]]) in cells
            words.add(found[0])
    assert words == set(known)


def test_the_exit_codes_of_errors_are_as_documented() -> None:
    part = command_sections()["Exit codes"]
    documented = {cells[1]: cells[0] for cells in rows(part)}
    assert documented["error"] == str(MedHardenError.exit_code)
    assert documented["interrupted"] == str(Interrupted.exit_code)


def test_every_environment_variable_that_the_code_reads_is_documented() -> None:
    code = "".join(text(p) for p in [*(ROOT / "medharden").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
    named = set(re.findall(r'"(MEDHARDEN_[A-Z_]+)"', code))
    assert named
    for variable in named:
        assert f"`{variable}`" in text(DOCS / "cli.md")


# --- files and links ---------------------------------------------------------------------------------------------


def test_every_file_that_the_report_needs_is_in_the_table_of_the_run_directory() -> None:
    listed = {bare(cells[0]) for cells in rows(text(DOCS / "run-directory.md"))}
    assert set(report_source._WRITTEN_BY) <= listed


def anchors(page: Path) -> set[str]:
    """Heading anchors as the site makes them."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", h).strip().lower()) for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_in_the_navigation_and_the_navigation_has_no_other() -> None:
    named = set(re.findall(r"[\w-]+\.md", text(ROOT / "mkdocs.yml")))
    assert named == {page.name for page in DOCS.glob("*.md")}


def test_every_public_name_is_on_the_page_for_python() -> None:
    named = re.findall(r"^::: (.*)$", text(DOCS / "api.md"), re.M)
    homes = {name: f"medharden.{home}.{name}" for home, names in medharden._HOMES.items() for name in names}
    assert sorted(named) == sorted(homes[name] for name in medharden.__all__)


# --- root files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pip install '.[harden]' && medharden demo", "pip install '.[test]' && pytest"])
def test_the_set_up_commands_stand_alone_in_the_readme(command: str) -> None:
    assert f"```sh\n{command}\n```" in text(ROOT / "README.md")


def test_the_citation_and_the_changelog_name_this_version() -> None:
    citation = yaml.safe_load(text(ROOT / "CITATION.cff"))
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    assert f"## [{__version__}]" in text(ROOT / "CHANGELOG.md")
