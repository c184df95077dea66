"""The layers of the house, held against the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "medharden"
LAYERS = (
    ("cli",),
    (
        "hardening",
        "evaluating",
        "gating",
        "reporting",
        "exporting",
        "verifying",
        "planning",
        "drafting",
        "strength",
        "attacking",
        "predicting",
        "parity",
    ),
    ("models", "attacks", "data", "stats", "audit", "codes"),
    ("protocol", "record"),
    ("plain_yaml", "ranks", "rows"),
    (
        "canonical",
        "delimited",
        "extras",
        "files",
        "foreign",
        "heap",
        "links",
        "monai_import",
        "patients",
        "pinning",
        "shortage",
        "sizes",
        "text",
    ),
    ("transfers",),
    ("errors", "_version"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FLOORS = (
    ("survey",),
    ("dicomweb", "groups", "sampled", "single", "stored"),
    ("cohort",),
    ("store",),
    ("checks",),
    ("sources",),
    ("view",),
    ("formats",),
    ("phantom", "pseudonyms"),
)
FLOOR = {name: rank for rank, names in enumerate(FLOORS) for name in names}


def modules(path: Path) -> set[str]:
    """Modules that a file imports, at any depth of its code; of `from a import b` both `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imports(path: Path, above: str = "medharden") -> set[str]:
    """Rooms of a package that a file imports."""
    depth = above.count(".") + 1
    found = {name.split(".")[depth] for name in modules(path) if name.startswith(f"{above}.")}
    here = PACKAGE.joinpath(*above.split(".")[1:])
    return {name for name in found if (here / name).is_dir() or (here / f"{name}.py").is_file()}


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


def test_no_import_runs_back_up_to_the_face_of_the_package() -> None:
    faces = {"__init__.py", "__main__.py"}
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE or path.name not in faces:
            named = {m for m in modules(path) if m.startswith("medharden.") and m.count(".") == 1}
            assert {m.removeprefix("medharden.") for m in named} <= set(RANK), path.relative_to(PACKAGE)


def test_imports_between_the_floors_of_data_run_one_way() -> None:
    """The face of `data` stands above all floors, so none may import it."""
    for path in (PACKAGE / "data").rglob("*.py"):
        floor = path.relative_to(PACKAGE / "data").parts[0].removesuffix(".py")
        if floor == "__init__":
            continue
        assert floor in FLOOR, f"{floor} has no floor"
        assert not {m for m in modules(path) if m.startswith("medharden.data.") and not imports_a_floor(m)}, path
        for other in imports(path, "medharden.data") - {floor}:
            assert FLOOR[other] > FLOOR[floor], f"{path.relative_to(PACKAGE)} imports medharden.data.{other}"


def imports_a_floor(module: str) -> bool:
    return module.split(".")[2] in FLOOR


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
        "assert len(medharden.__all__) == 21 and not missing, missing\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
