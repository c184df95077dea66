"""What `--track` tells, and that no run is ever the worse for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from verifying_runs import make_run

from medharden.audit import canonical_json, read_record
from medharden.cli import tracking as module
from medharden.cli.tracking import Tracking, tracking
from medharden.errors import RunError
from medharden.gating import gate
from medharden.record import EpochRecord, HardenRecord


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run directory with its reports."""
    folder = tmp_path_factory.mktemp("tracked") / "run"
    make_run(folder)
    harden = folder / "harden.json"
    record = read_record(harden, HardenRecord)
    epoch = EpochRecord(0, 0.7, 1e-3, 0.5, 0.4, 0.9, 0.6, 1, 0, 12.0, 3.0, True)
    harden.write_bytes(canonical_json(replace(record, epochs=(epoch, replace(epoch, epoch=1)))) + b"\n")
    return folder


def whole(kind: str, run: Path, pictures: bool = False) -> None:
    with tracking(kind, run) as told:
        told.locked("ab12", 3)
        told.hardened()
        told.evaluated()
        told.decided(gate(run, read_only=True), pictures)


def test_tensorboard_holds_epochs_verdict_and_model_card(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    whole("tensorboard", run)
    seen = EventAccumulator(str(run.parent / "tensorboard" / "run"))
    seen.Reload()
    tags = seen.Tags()
    assert {"harden/loss", "harden/val_robust", "test/composite/robust"} <= set(tags["scalars"])
    assert {"protocol/text_summary", "verdict/text_summary", "model-card.md/text_summary"} <= set(tags["tensors"])
    assert not (run / "tensorboard").exists(), "the run directory holds records alone"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in module._QUIET:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "mlruns"


def files_of(store: Path) -> Iterator[Path]:
    return (path for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_them_too_and_the_reports_as_artefacts_but_no_pictures(
    run: Path, store: Path, pictures: bool
) -> None:
    whole("mlflow", run, pictures)
    names = {path.name for path in files_of(store)}
    assert {"loss", "val_clean", "robust", "verdict", "protocol", "report.json", "gate.json"} <= names
    assert ("report.html" in names) == ("report.pdf" in names) == (not pictures)
    said = "\n".join(path.read_text(errors="replace") for path in files_of(store) if path.name.startswith("mlflow."))
    assert os.environ.get("USER", "root") not in said.split()
    assert "pytest" not in said
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_nothing_of_a_case_is_told_by_number_or_text(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Recorder:
        def __init__(self, run: Path) -> None: ...
        def texts(self, told):
            said.extend(f"{k} {v}" for k, v in told.items())

        def numbers(self, told, step):
            said.extend(told)

        def file(self, path): ...
        def close(self, ended):
            said.append(f"ended {ended}")

    monkeypatch.setattr(module, "_TensorBoard", Recorder)
    whole("tensorboard", run)
    cases = module.RunFiles(run).cases()
    assert not any(name in "\n".join(said) for name in (*cases.case, *cases.patient))
    assert said[-1] == "ended True"


@pytest.mark.parametrize("at", ["__init__", "texts", "numbers", "file", "close"])
def test_a_tracker_that_fails_is_told_no_more_and_fails_no_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    calls: list[str] = []

    class Failing:
        def __init__(self, run: Path) -> None:
            self._do("__init__")

        def _do(self, name: str) -> None:
            calls.append(name)
            if name == at:
                raise ConnectionError("https://anna:secret@server")

        def texts(self, told):
            self._do("texts")

        def numbers(self, told, step):
            self._do("numbers")

        def file(self, path):
            self._do("file")

        def close(self, ended):
            self._do("close")

    monkeypatch.setattr(module, "_TensorBoard", Failing)
    whole("tensorboard", run)
    said = capsys.readouterr().err
    assert calls.count(at) == 1
    assert calls[-1] == at, "it was told no more"
    assert "tensorboard: ConnectionError; the run goes on" in said
    assert "secret" not in said


def test_without_it_nobody_is_told_and_beside_the_first_process_neither(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TensorBoard", None)  # to be called would raise
    whole("", run)
    monkeypatch.setattr("medharden.ranks.first", lambda: False)
    whole("tensorboard", run)
    assert Tracking()._client is None


def test_what_is_lacking_is_said_before_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RunError, match="MLFLOW_TRACKING_URI, found none"), tracking("mlflow", run):
        raise AssertionError
    from medharden.extras import missing

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ModuleNotFoundError) as caught, tracking("mlflow", run):
        raise AssertionError
    assert "extra `track`" in str(missing(caught.value))
