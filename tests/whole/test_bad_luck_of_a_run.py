"""What a whole run meets on the way, and how it goes on: a full disk, no memory, a device that fails, a lost store."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ARCH, PROTOCOL, tiny_model, write_archive

from medharden import cli
from medharden.audit import RunFiles, verify_log
from medharden.cli import pipeline
from medharden.errors import MachineError
from medharden.shortage import no_memory, shortage

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line in this process, without the pages of the report, and signals as they were."""
    monkeypatch.setattr(pipeline, "render", lambda run: [run / "report.html"])
    monkeypatch.setattr(pipeline, "write_bom", lambda run: None)
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", "a key for tests, sixteen bytes or more")
    before = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    yield
    for which, handler in before.items():
        signal.signal(which, handler)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`harden` on small images, without its run directory and cache."""
    folder = tmp_path_factory.mktemp("luck")
    write_archive(folder / "tiny.npz", sizes=(100, 40, 30))
    tiny_model(folder)
    (folder / "tiny.yaml").write_text(PROTOCOL.replace("epochs: 20", "epochs: 3, teacher: {weight: 0.2}"))
    chosen = ["--data", folder / "tiny.npz", "--protocol", folder / "tiny.yaml", "--arch", ARCH, "--device", "cpu"]
    return ["harden", str(folder / "model.pt"), *map(str, chosen), "--json", "--checkpoint-minutes", "0"]


def called(words: list[str], capsys: pytest.CaptureFixture[str], **places: Path) -> tuple[int, dict[str, Any]]:
    """The exit code of a command, and what it said."""
    before, sys.argv = sys.argv, ["medharden", *words, *(w for k, v in places.items() for w in (f"--{k}", str(v)))]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = before
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    return int(left.value.code or 0), json.loads(said.out)


def results(run: Path) -> tuple[str, list[tuple[str, int, int]]]:
    """The weights, and who was right how often."""
    files = RunFiles(run)
    cases = files.cases()
    seen = [(name, int(s.predicted.sum()), len(s.won_by)) for name, s in cases.subjects.items()]
    return files.digest("hardened.safetensors"), seen


@pytest.fixture(scope="module")
def undisturbed(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return []


def failing(real: Callable[..., Any], at: int, error: BaseException, only: Callable[..., bool] = lambda *a: True):
    """A function whose call number `at`, and each after it, ends in the error."""
    left = [at]

    def instead(*given: Any, **named: Any) -> Any:
        left[0] -= only(*given)
        if left[0] < 0 and only(*given):
            raise error
        return real(*given, **named)

    return instead


def named(part: str) -> Callable[..., bool]:
    """Whether a descriptor is of a file of such a name."""
    return lambda handle, *rest: part in os.readlink(f"/proc/self/fd/{handle}")


SHORT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.10 GiB free")
FAILED = RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported elsewhere")
FULL, BROKEN = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError(errno.EIO, os.strerror(errno.EIO))
CAUSES = {
    "no memory for the teacher": ("medharden.hardening.training.logits_in_batches", 1, SHORT, "2.00 GiB"),
    "no memory in a probe": ("medharden.hardening.probe.task_loss", 2, SHORT, "2.00 GiB"),
    "no memory in calibration": ("medharden.hardening.calibration.dealt_logits", 1, SHORT, "2.00 GiB"),
    "no memory in an attack": ("medharden.attacks.suite.dispatch", 2, SHORT, "--batch-size"),
    "the device fails in a step": ("medharden.hardening.stepping.task_loss", 7, FAILED, "unspecified launch failure"),
    "the device fails in an attack": ("medharden.attacks.suite.dispatch", 1, FAILED, "device failed"),
    "the disk is full, in training": ("os.pwrite", 150, FULL, "No space left on device"),
    "the disk is full, at a checkpoint": ("os.fsync", 14, FULL, "No space left on device"),
    "the disk is full, at a later one": ("os.fsync", 40, FULL, "No space left on device"),
    "the store can't be read": ("os.preadv", 190, BROKEN, "cache remove"),
}
OF_FILES = {"os.pwrite": named("harden."), "os.preadv": named("cases-")}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_befalls_a_run_is_said_and_the_same_command_goes_on_to_the_same_end(
    words: list[str],
    undisturbed: list[Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
) -> None:
    places = {"out": tmp_path / "run", "cache": tmp_path / "cache"}
    if not undisturbed:
        called(words, capsys, out=tmp_path / "plain")
        undisturbed.append(results(tmp_path / "plain"))
    where, at, error, word = CAUSES[cause]
    module, _, name = where.rpartition(".")
    real = getattr(sys.modules[module], name)
    with monkeypatch.context() as patch:
        patch.setattr(where, failing(real, at, error, OF_FILES.get(where, lambda *a: True)))
        code, said = called(words, capsys, **places)
    assert code == 1, said
    assert said["type"] in ("MachineError", "OutputError", "DataError", "HardeningError"), said
    assert word in said["error"]
    assert "expected" in said["error"]
    events, _ = verify_log(places["out"] / "audit.jsonl")
    assert events > 1
    code, said = called(words, capsys, **places)
    assert code in (0, 3, 4), said
    assert results(places["out"]) == undisturbed[0]
    assert not [p for p in places["out"].iterdir() if p.name.startswith((".", "harden.c", "evaluate."))]


def test_what_a_machine_runs_out_of_is_known_by_its_error_and_all_else_is_a_defect() -> None:
    for error in (SHORT, MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9")):
        assert no_memory(error)
        assert "out of memory" in str(shortage(error))
    for number in (errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EIO, errno.ENOMEM):
        told = shortage(OSError(number, os.strerror(number), "/home/anna/scan.dcm"))
        assert isinstance(told, MachineError)
        assert "anna" not in str(told)
    wrapped = ValueError("unfinished: Anna")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full", "/home/anna")
    assert "No space left" in str(shortage(wrapped))
    assert "nna" not in str(shortage(wrapped))
    for error in (ValueError("shape"), OSError(errno.ENOENT, "gone"), RuntimeError("shapes do not fit"), KeyError(1)):
        assert shortage(error) is None
