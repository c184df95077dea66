"""The layers of the house, held against the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "medharden"
LAYERS = (
    ("cli",),
    ("hardening", "evaluating", "gating", "reporting", "exporting", "verifying", "planning", "strength", "attacking"),
    ("models", "attacks", "data", "stats", "audit"),
    ("protocol", "record"),
    ("plain_yaml",),
    ("canonical", "extras", "files", "pinning", "sizes", "text"),
    ("errors",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """Rooms of medharden that a file imports, at any depth of its code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("medharden.")}
    return found


def rooms() -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name not in ("__init__", "__main__"):
            files.setdefault(name, []).append(path)
    return files


def test_every_room_has_a_layer() -> None:
    assert set(rooms()) <= set(RANK)


@pytest.mark.parametrize("room", sorted(RANK))
def test_imports_run_downwards_only_and_sideways_never(room: str) -> None:
    for path in rooms().get(room, []):
        for other in imports(path) - {room}:
            assert RANK[other] > RANK[room], f"{path.relative_to(PACKAGE)} imports medharden.{other}"


def test_no_file_outgrows_four_hundred_lines() -> None:
    long = {p.name: n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long


def test_every_public_name_of_a_face_exists() -> None:
    code = (
        "import importlib\n"
        f"for room in {sorted(set(rooms()) - {'cli'})!r}:\n"
        "    face = importlib.import_module('medharden.' + room)\n"
        "    missing = [n for n in face.__all__ if not hasattr(face, n)]\n"
        "    assert face.__all__ and not missing, (room, missing)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("command", ["--help", "harden --help", "gate --help", "verify --help", "protocol list"])
def test_help_and_protocols_import_no_torch(command: str) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['medharden', *{command.split()!r}]\n"
        "from medharden.cli import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_the_package_offers_its_public_names_and_imports_nothing_until_one_is_used() -> None:
    code = (
        "import sys, medharden\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "missing = [n for n in medharden.__all__ if not callable(getattr(medharden, n))]\n"
        "assert len(medharden.__all__) == 18 and not missing, missing\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
