"""What is installed for what: a build decides without PyTorch, and what is lacking is asked for by its extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from command import environment
from conftest import ROOT
from verifying_runs import make_key, make_run

from medharden.extras import EXTRAS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
HEAVY = ("torch", "monai", "timm", "matplotlib")
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["medharden", *{arguments!r}]
from medharden.cli import main
main()
"""


def distributions(requirements: list[str]) -> set[str]:
    """Names of distributions, those of medharden's own extras included."""
    names = set()
    for requirement in requirements:
        own = re.fullmatch(r"medharden\[(\w+)\]", requirement)
        name = re.match(r"[\w.-]+", requirement)[0].lower()
        names |= distributions(PROJECT["optional-dependencies"][own[1]]) if own else {name}
    return names


BASE = distributions(PROJECT["dependencies"])
OF_EXTRA = {name: BASE | distributions(listed) for name, listed in PROJECT["optional-dependencies"].items()}


def without(absent: set[str] | frozenset[str], *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`medharden ARGUMENTS` where modules are not installed."""
    code = WITHOUT.format(absent=set(absent), arguments=[str(argument) for argument in arguments])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("extras")
    make_run(place / "run")
    make_run(place / "other")
    make_key(place)
    rows = "".join(f"c{k},p{k},{'ab'[k % 2]},{'ab'[k % 2]}\n" for k in range(40))
    for name in ("old", "new"):
        (place / f"{name}.csv").write_text(f"case,patient,label,answer\n{rows}")
    return place


def test_the_gate_is_installed_without_what_trains_or_draws() -> None:
    assert not BASE & {"torch", "monai", "timm", "matplotlib", "torchvision", "pydicom", "typst"}
    assert OF_EXTRA["gate"] == BASE
    assert OF_EXTRA["harden"] >= {*HEAVY, "typst"}
    assert OF_EXTRA["test"] >= OF_EXTRA["harden"], "the README's line of the tests brings everything"


def test_no_version_with_the_flaws_that_security_md_names_is_installed() -> None:
    rows = re.findall(r"^\| ([\w-]+) \| (\d[\d.]*) \| .*(?:CVE|PYSEC)-\d{4}-\d+", SECURITY, re.MULTILINE)
    assert len(rows) > 6
    listed = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    floors = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(listed), re.MULTILINE))
    assert {name: floors.get(name) for name, _ in rows} == dict(rows)


def test_every_module_that_is_imported_comes_with_the_extra_that_is_said() -> None:
    brought = packages_distributions()
    for path in (ROOT / "medharden").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in {name.partition(".")[0] for name in names if name}:
                if module in sys.stdlib_module_names or module == "medharden":
                    continue
                given = {name.lower() for name in brought[module]}
                extra = next(
                    (
                        name
                        for name in (
                            "report",
                            "harden",
                            "export",
                            "dicomweb",
                            "jpeg12",
                            "onnx",
                            "track",
                            "transformers",
                        )
                        if module in EXTRAS[name]
                    ),
                    "gate",
                )
                own = {
                    "markupsafe": "jinja2",
                    "cryptography": "securesystemslib",
                    "typing_extensions": "pydantic",
                    "google": "onnx",
                    "onnx_ir": "onnxscript",
                }.get(module)
                assert given & OF_EXTRA[extra] or own in OF_EXTRA[extra], f"{path.name} imports {module}"
                room = path.relative_to(ROOT / "medharden").parts[0]
                assert extra not in ("harden", "export") or room not in (
                    "audit",
                    "gating",
                    "protocol",
                    "record",
                    "reporting",
                    "stats",
                )


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "run", "--read-only"),
        ("gate", "run", "--json", "--read-only"),
        ("gate", "run", "--format", "markdown", "--check"),
        ("verify", "run"),
        ("verify", "run", "--json"),
        ("diff", "run", "other"),
        ("compare", "old.csv", "new.csv", "--margin", "accuracy=0.2"),
        ("keygen", "new.key"),
        ("protocol", "list"),
        ("protocol", "show", "demo"),
        ("protocol", "validate", "run/protocol.yaml"),
        ("protocol", "plan", "demo", "--cases", "400", "--positives", "100"),
        ("harden", "--help"),
        ("--version",),
    ],
    ids=" ".join,
)
def test_these_commands_need_no_extra(folder: Path, arguments: tuple[str, ...]) -> None:
    done = without(EXTRAS["harden"], *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder / "new.key").unlink(missing_ok=True)


def test_a_signature_is_made_and_verified_without_extras_where_there_is_no_report(folder: Path, tmp_path: Path) -> None:
    from gating_factory import records, write_run

    run = tmp_path / "run"
    run.mkdir()
    write_run(run, records())
    assert without(EXTRAS["harden"], "gate", run, cwd=folder).returncode == 0
    who = ("--name", "Ada", "--role", "quality", "--meaning", "approval", "--reason", "release")
    done = without(EXTRAS["harden"], "sign", run, "--key", "signer.key", *who, cwd=folder)
    assert done.returncode == 0, done.stderr
    done = without(EXTRAS["harden"], "verify", run, "--key", "signer.key.pub", "--require-signature", cwd=folder)
    assert done.returncode == 0, done.stdout


def test_reports_that_nothing_here_renders_are_said_to_be_uncompared_and_are_not_signed(folder: Path) -> None:
    done = without(EXTRAS["harden"], "verify", "run", cwd=folder)
    assert done.returncode == 0
    assert "not installed here, so not compared with the records: report.json, report.html" in done.stdout
    who = ("--name", "Ada", "--role", "quality", "--meaning", "approval", "--reason", "release")
    done = without(EXTRAS["harden"], "sign", "run", "--key", "signer.key", *who, cwd=folder)
    assert done.returncode == 1
    assert "without its extra `report`" in done.stderr
    assert not (folder / "run" / "signatures").exists()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("report", "run", "--out", "elsewhere"), "report"),
        (("frontier", "run"), "report"),
        (("harden", "m.pt", "--data", "run"), "harden"),
        (("inspect", "--data", "run"), "harden"),
        (("evaluate", "run", "--data", "run"), "harden"),
        (("export", "run", "--to", "onnx"), "harden"),
        (("predict", "run", "a.png"), "harden"),
        (("attack", "m.pt", "--data", "run", "--write", "new"), "harden"),
        (("demo", "--out", "new"), "harden"),
        (("protocol", "plan", "demo", "--data", "run"), "harden"),
        (("verify", "run", "--model", "m.pt"), "harden"),
        (("verify", "run", "--model", "m.pt", "--data", "run"), "harden"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_other_commands_say_which_extra_they_need_and_how_it_is_installed(
    folder: Path, arguments: tuple[str, ...], extra: str
) -> None:
    done = without(EXTRAS["harden"], *arguments, cwd=folder)
    assert done.returncode == 1
    assert f"was installed without its extra `{extra}`" in done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr
    assert "pip install medharden" not in done.stderr, "a name that others may take on an index"
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.parametrize("module", ["torch", "pydicom", "PIL", "safetensors", "matplotlib"])
def test_one_package_that_is_lacking_is_named_before_anything_is_done(folder: Path, module: str) -> None:
    done = without({module}, "harden", "m.pt", "--data", "run", cwd=folder)
    assert (done.returncode, f"needs {module}," in done.stderr) == (1, True), done.stderr[-800:]
    assert not (folder / "medharden-run").exists()


@pytest.mark.parametrize("module", ["dicomweb_client", "requests"])
def test_a_server_is_asked_with_an_extra_of_its_own(folder: Path, module: str) -> None:
    asked = ("inspect", "--data", "old.csv", "--dicomweb", "https://pacs.invalid/dicom-web")
    done = without({module}, *asked, cwd=folder)
    assert (done.returncode, f"needs {module}," in done.stderr) == (1, True), done.stderr[-800:]
    assert "pip install '.[dicomweb]'" in done.stderr


def test_a_module_that_no_extra_brings_is_a_defect_still(folder: Path) -> None:
    done = without({"yaml"}, "gate", "run", "--read-only", cwd=folder)
    assert done.returncode == 1
    assert "a defect in medharden or a library: ModuleNotFoundError" in done.stderr


def test_the_public_names_say_it_too(folder: Path) -> None:
    code = WITHOUT.format(absent=set(EXTRAS["harden"]), arguments=[]).rpartition("from medharden.cli")[0] + (
        "import medharden\n"
        "medharden.gate, medharden.verify, medharden.sign, medharden.load_protocol\n"
        "for name, extra in (('harden', 'harden'), ('load_hardened', 'harden'), ('render', 'report')):\n"
        "    try:\n        getattr(medharden, name)\n"
        "    except medharden.MedHardenError as error:\n        assert f'extra `{extra}`' in str(error), error\n"
        "    else:\n        raise AssertionError(name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment())
