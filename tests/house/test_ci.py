"""The build files that the documentation offers: nothing unpinned is installed, and they decide as the gate does."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import environment
from conftest import ROOT
from gating_factory import Records, records, write_run
from verifying_runs import WHO, make_key, make_run

from medharden.gating import gate
from medharden.reporting import report_files
from medharden.verifying import sign, verify

CI = ROOT / "docs" / "ci"
COMMIT, HEX = "0123456789abcdef0123456789abcdef01234567", "a" * 64
SHELLS = [shell for shell in ("bash", "dash") if shutil.which(shell)]


def content(name: str) -> Any:
    return yaml.safe_load((CI / name).read_text(encoding="utf-8"))


def step(name: str) -> dict[str, Any]:
    return next(s for s in content("action.yml")["runs"]["steps"] if s.get("id") == name)


def programs(folder: Path, **scripts: str) -> str:
    """A PATH on which these commands come first."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    return f"{place}:{environment()['PATH']}"


def run_shell(text: str, folder: Path, shell: str = "bash", **variables: str) -> subprocess.CompletedProcess[str]:
    options = ["-eo", "pipefail"] if shell == "bash" else ["-e"]
    return subprocess.run(
        [shell, *options, "-c", text],
        cwd=folder,
        env=environment(**variables),
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )


# --- what is installed -----------------------------------------------------------------------------------------------


def install(folder: Path, source: str, *, shell: str = "bash", extra: str = "gate") -> tuple[int, list[str]]:
    """The step's exit code, and what it gives to pip, of which nothing is installed."""
    path = programs(folder, python=f'case "$*" in *" pip "*) printf "%s\\n" "$@" > "{folder}/asked" ;; '
                    f'*) exec "{sys.executable}" "$@" ;; esac')  # fmt: skip
    (folder / "asked").unlink(missing_ok=True)
    done = run_shell(step("install")["run"], folder, shell, SOURCE=source, EXTRA=extra, PATH=path)
    asked = (folder / "asked").read_text().splitlines() if (folder / "asked").exists() else []
    assert (done.returncode == 0) == bool(asked), done.stderr
    return done.returncode, asked


@pytest.mark.parametrize("shell", SHELLS)
def test_pinned_sources_are_handed_to_pip_as_it_enforces_them(tmp_path: Path, shell: str) -> None:
    (tmp_path / "a.whl").write_bytes(b"")
    (tmp_path / "all.txt").write_text("")
    for source, expected in (
        (f"a.whl#sha256={HEX}", [f"medharden[gate] @ {(tmp_path / 'a.whl').as_uri()}#sha256={HEX}"]),
        (f"https://example.org/a.whl#sha256={HEX}", [f"medharden[gate] @ https://example.org/a.whl#sha256={HEX}"]),
        (f"git+https://example.org/a/b.git@{COMMIT}", [f"medharden[gate] @ git+https://example.org/a/b.git@{COMMIT}"]),
        ("all.txt", ["--require-hashes", "-r", "all.txt"]),
    ):
        code, asked = install(tmp_path, source, shell=shell)
        assert (code, asked) == (0, ["-I", "-m", "pip", "install", "--no-input", *expected])


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "source",
    [
        "",
        "medharden",
        "medharden==0.1.0",
        "medharden[gate]",
        ".",
        "./",
        "a.whl",
        f"absent.whl#sha256={HEX}",
        f"a.whl#sha256={HEX[:-1]}",
        f"a.whl#sha256={HEX[:-1]}g",
        f"a.whl#sha256={HEX.upper()}",
        f"a.whl#sha256={HEX}#sha256={HEX}",
        f"a.whl#md5={HEX}",
        "a.whl#sha256=",
        f"http://example.org/a.whl#sha256={HEX}",
        "https://example.org/a.whl",
        f"file:///a.whl#sha256={HEX}",
        "git+https://example.org/a/b.git",
        "git+https://example.org/a/b.git@main",
        "git+https://example.org/a/b.git@v1.0",
        f"git+https://example.org/a/b.git@{COMMIT[:12]}",
        f"git+https://example.org/a/b.git@{COMMIT.upper()}",
        f"git+https://example.org/a/b.git@main#@{COMMIT}",
        f"git+https://example.org/a/b.git@main?x=@{COMMIT}",
        f"git+https://example.org/a/b.git@main ; @{COMMIT}",
        f"git+https://example.org/a/b.git@{COMMIT}#egg=medharden",
        f"git+http://example.org/a/b.git@{COMMIT}",
        f"git+ssh://git@example.org/a/b.git@{COMMIT}",
        f"git+https://me@{COMMIT}",
        "absent.txt",
        "-r all.txt",
        "--index-url=https://example.org/all.txt",
        "all.txt\n--index-url=https://example.org",
        "$(touch ran).txt",
        "a.whl;touch ran",
    ],
)
def test_what_is_not_pinned_is_refused_before_pip_is_asked(tmp_path: Path, source: str, shell: str) -> None:
    (tmp_path / "a.whl").write_bytes(b"")
    (tmp_path / "all.txt").write_text("")
    assert install(tmp_path, source, shell=shell) == (2, [])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("extra", ["", "all", "gate] @ https://example.org/x.whl#", "harden"])
def test_no_other_extra_is_installed(tmp_path: Path, extra: str) -> None:
    assert install(tmp_path, f"https://example.org/a.whl#sha256={HEX}", extra=extra) == (2, [])


def wheel(folder: Path) -> tuple[str, str]:
    """The name and digest of a wheel that is called medharden, and is nearly empty."""
    path, info = folder / "medharden-0.1.0-py3-none-any.whl", "medharden-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("medharden_stand_in.py", "")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: medharden\nVersion: 0.1.0\nProvides-Extra: gate\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["wheel", "requirements", "without a hash"])
@pytest.mark.parametrize("right", [True, False])
def test_pip_itself_refuses_a_wheel_that_is_another(tmp_path: Path, form: str, right: bool) -> None:
    name, digest = wheel(tmp_path)
    digest = digest if right else digest[::-1]
    (tmp_path / "all.txt").write_text(f"./{name}{'' if form == 'without a hash' else f' --hash=sha256:{digest}'}\n")
    source = f"{name}#sha256={digest}" if form == "wheel" else "all.txt"
    target = tmp_path / "installed"
    pip = {"PIP_TARGET": str(target), "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": "/dev/null"}
    path = programs(tmp_path, python=f'exec "{sys.executable}" "$@"')
    done = run_shell(step("install")["run"], tmp_path, SOURCE=source, EXTRA="gate", PATH=path, **pip)
    installed = right and form != "without a hash"
    assert (done.returncode == 0) == installed, done.stderr
    assert (target / "medharden_stand_in.py").exists() == installed


def test_both_builds_install_by_the_same_lines_and_neither_has_a_source_of_its_own() -> None:
    job = content("gitlab.yml")[".medharden-install"]
    assert job["before_script"] == [step("install")["run"]]
    assert (job["variables"]["SOURCE"], job["variables"]["IMAGE"]) == ("", "")
    assert content("action.yml")["inputs"]["source"] == {
        "description": content("action.yml")["inputs"]["source"]["description"],
        "required": True,
    }
    for path in [*CI.iterdir(), ROOT / "docs" / "ci.md", ROOT / "README.md"]:
        assert not re.search(r"pip install (?:-\S+ )*['\"]?medharden", path.read_text(encoding="utf-8")), path


# --- whose code runs, and what it may --------------------------------------------------------------------------------


def uses(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["uses"]] if "uses" in value else []
        return own + [found for inner in value.values() for found in uses(inner)]
    return [found for inner in value for found in uses(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", ["action.yml", "github.yml"])
def test_actions_are_named_by_commit_with_their_version_beside_it(name: str) -> None:
    text = (CI / name).read_text(encoding="utf-8")
    found = uses(content(name))
    assert found
    for action in found:
        if action != "./.github/actions/medharden-gate":
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action)
            assert re.search(rf"uses: {action} # v\d+\.\d+\.\d+$", text, re.M)


def scripts(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["run"]] if isinstance(value.get("run"), str) else []
        return own + [found for inner in value.values() for found in scripts(inner)]
    return [found for inner in value for found in scripts(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", ["action.yml", "github.yml"])
def test_no_input_becomes_text_of_a_script(name: str) -> None:
    found = [script for script in scripts(content(name)) if script != "run"]
    assert found
    assert not [script for script in found if "${{" in script]


def test_the_workflow_grants_what_each_job_needs_and_releases_on_a_pass_alone() -> None:
    workflow = content("github.yml")
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    assert jobs["gate"]["permissions"] == {"contents": "read", "actions": "read"}
    assert jobs["release"]["permissions"] == {"contents": "read"}
    assert jobs["release"]["if"] == "needs.gate.outputs.verdict == 'PASS'"
    assert jobs["release"]["needs"] == "gate"
    checkout = jobs["gate"]["steps"][0]
    assert checkout["with"] == {"persist-credentials": False}
    given = jobs["gate"]["steps"][-1]["with"]
    assert set(given) <= set(content("action.yml")["inputs"])
    assert {"source", "protocol", "key", "run"} <= set(given)


def test_the_gitlab_pipeline_sets_what_its_template_asks_for_and_the_image_by_digest() -> None:
    pipeline, templates = content("gitlab-pipeline.yml"), content("gitlab.yml")
    job = pipeline["gate"]
    assert job["extends"] in templates
    known = templates[".medharden-install"]["variables"] | templates[".medharden-verify"]["variables"]
    assert set(job["variables"]) <= set(known)
    assert re.fullmatch(r"python:3\.12-slim@sha256:0{64}", job["variables"]["IMAGE"]), "to be filled in"
    assert pipeline["release"]["needs"] == ["gate"]


# --- what they decide ------------------------------------------------------------------------------------------------


def decide(folder: Path, **more: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The action's step on `run`, and what it says of the verdict."""
    given = {
        "RUN": "run",
        "PROTOCOL": "run/protocol.yaml",
        "KEY": "",
        "EXTRA": "gate",
        "ALLOWED": "false",
        "REPORT": "report",
    }
    assert set(step("gate")["env"]) == set(given)
    path = programs(folder, medharden=f'exec "{sys.executable}" -m medharden "$@"')
    output = folder / "output"
    output.write_text("")
    variables = (
        given | {"GITHUB_OUTPUT": str(output), "PATH": path, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}"} | more
    )
    return run_shell(step("gate")["run"], folder, **variables), output.read_text()


@pytest.mark.parametrize(
    ("made", "allowed", "code", "verdict"),
    [
        (records(), "false", 0, "PASS"),
        (records(lost=30), "true", 3, "FAIL"),
        (records(lost=7), "false", 4, "INCONCLUSIVE"),
        (records(lost=7), "true", 0, "INCONCLUSIVE"),
        (None, "true", 1, ""),
    ],
    ids=["pass", "fail", "inconclusive", "inconclusive allowed", "error"],
)
def test_the_composite_action_decides_as_the_gate_does(
    tmp_path: Path, made: Records | None, allowed: str, code: int, verdict: str
) -> None:
    if made is not None:
        (tmp_path / "run").mkdir()
        write_run(tmp_path / "run", made)
    done, said = decide(tmp_path, ALLOWED=allowed)
    assert done.returncode == code, done.stderr
    assert said == (f"verdict={verdict}\n" if verdict else "")
    assert not (tmp_path / "report").exists()


def test_the_action_checks_the_signature_first_and_renders_the_report_beside_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    key, public = make_key(tmp_path)
    sign(run, key, WHO, render=report_files)
    digest = json.loads((run / "gate.json").read_text())["protocol"]
    given = {"KEY": str(public), "PROTOCOL": digest, "EXTRA": "report"}
    done, said = decide(tmp_path, **given)
    assert (done.returncode, said) == (0, "verdict=PASS\n"), done.stderr
    assert {"report.html", "gate.junit.xml"} <= {path.name for path in (tmp_path / "report").iterdir()}
    assert not verify(run, public_keys=[public]).faults, "nothing was written to the run"
    done, said = decide(tmp_path, **given | {"PROTOCOL": "0" * 64})
    assert (done.returncode, said) == (5, "verdict=INVALID\n")
    (run / "report.html").write_text("another")
    done, said = decide(tmp_path, **given)
    assert (done.returncode, said) == (5, "verdict=INVALID\n")
    assert "PASS ·" not in done.stdout, "the gate was not asked"


def test_the_gitlab_template_verifies_decides_and_keeps_the_report_elsewhere(tmp_path: Path) -> None:
    job = content("gitlab.yml")[".medharden-verify"]
    run = make_run(tmp_path / "run")
    key, public = make_key(tmp_path)
    sign(run, key, WHO, render=report_files)
    path = programs(tmp_path, medharden=f'exec "{sys.executable}" -m medharden "$@"')
    variables = {"RUN": "run", "KEY": str(public), "PROTOCOL": "run/protocol.yaml", "EXTRA": "report", "PATH": path}
    variables["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests/helpers'}"
    done = run_shell("\n".join(job["script"]), tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    junit = content("gitlab.yml")[".medharden-gate"]["artifacts"]["reports"]["junit"]
    assert (tmp_path / junit).is_file()
    assert not verify(run, public_keys=[public]).faults
    (run / "gate.json").write_bytes(b"{}")
    assert run_shell("\n".join(job["script"]), tmp_path, **variables).returncode == 5


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (30, 3), (7, 4)])
def test_the_gitlab_template_of_an_unsigned_run_exits_as_the_gate_does(tmp_path: Path, lost: int, code: int) -> None:
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", records(lost=lost))
    path = programs(tmp_path, medharden=f'exec "{sys.executable}" -m medharden "$@"')
    variables = {"RUN": "run", "PROTOCOL": "run/protocol.yaml", "EXTRA": "gate", "PATH": path}
    variables["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests/helpers'}"
    done = run_shell("\n".join(content("gitlab.yml")[".medharden-gate"]["script"]), tmp_path, **variables)
    assert done.returncode == code, done.stderr
    assert gate(tmp_path / "run", read_only=True).verdict is not None


def test_neither_build_decides_without_a_protocol_that_is_required(tmp_path: Path) -> None:
    assert content("action.yml")["inputs"]["protocol"].keys() == {"description", "required"}
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", records())
    done, said = decide(tmp_path, PROTOCOL="")
    assert (done.returncode, said) == (2, "")
    path = programs(tmp_path, medharden=f'exec "{sys.executable}" -m medharden "$@"')
    for name in (".medharden-gate", ".medharden-verify"):
        script = "\n".join(content("gitlab.yml")[name]["script"])
        done = run_shell(script, tmp_path, RUN="run", KEY="k", PROTOCOL="", EXTRA="gate", PATH=path)
        assert done.returncode == 2
        assert "PROTOCOL must be" in done.stderr
    assert not (tmp_path / "run" / "gate.json").exists()
