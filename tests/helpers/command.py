"""Running the command line in a process of its own, as a user would.

A process takes some five seconds of the processor to import what a command needs. So commands run in forks of one that
has imported it (the standard library's fork server), a fork a command; `MEDHARDEN_TEST_FRESH=1`, a `fresh` process, or
an environment that is read while Python starts give each an interpreter of its own.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
_READ_LATE = ("MEDHARDEN_", "GITHUB_", "COLUMNS", "NO_COLOR", "FORCE_COLOR", "XDG_")
"""How variables begin that a command looks up while it runs."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment with the checkout importable, one thread and a fixed pseudonym key."""
    fixed = {
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "MEDHARDEN_PSEUDONYM_KEY": "a key for tests, sixteen bytes or more",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    return os.environ | fixed | more


def medharden(
    *arguments: object, cwd: Path, timeout: float = 900, fresh: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """`medharden ARGUMENTS` in a folder."""
    words = [str(argument) for argument in arguments]
    if fresh or os.environ.get("MEDHARDEN_TEST_FRESH") or not all(name.startswith(_READ_LATE) for name in more):
        command = [sys.executable, "-m", "medharden", *words]
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment(**more),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    return _forked(words, cwd, environment(**more), timeout)


def _forked(words: list[str], cwd: Path, variables: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["command_imports"])
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("out", "err")]
        before = dict(os.environ)
        os.environ.update(environment())  # of the server, which starts with the first command
        try:
            process = context.Process(target=_run, args=(words, str(cwd), variables, [str(path) for path in said]))
            process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout)
        out, err = (path.read_text(encoding="utf-8") if path.is_file() else "" for path in said)
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _run(words: list[str], cwd: str, variables: dict[str, str], said: list[str]) -> None:
    """Becomes the command; what it prints goes where it would if it had been started alone."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    for number, path in enumerate(said, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    streams = [io.TextIOWrapper(os.fdopen(n, "wb", closefd=False), encoding="utf-8") for n in (1, 2)]
    sys.stdout, sys.stderr = streams
    sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)
    sys.argv = ["medharden", *words]
    sys.path[0:0] = [cwd]  # as `python -m` has it
    try:
        runpy.run_module("medharden", run_name="__main__", alter_sys=True)
    finally:
        for stream in streams:
            stream.flush()


def assert_clear(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """An outcome as it should be: its exit code, its words, no traceback."""
    said = result.stderr + result.stdout
    assert result.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
