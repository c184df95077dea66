"""`--track`: what a run recorded, told to TensorBoard or MLflow beside; off unless asked for, and never in the way.

What is told is read back from the run's records after each stage, which hold no patient data; a report with pictures is
left out. Their own clients are used: accelerate's trackers would bring accelerate, which nothing else here needs. Where
a tracker fails the run goes on untracked, and a line says so.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from medharden import ranks
from medharden._version import __version__
from medharden.audit import RunFiles
from medharden.cli.console import out, warn
from medharden.errors import RunError
from medharden.record import Evaluation, GateDecision, HardenRecord

__all__ = ["TRACKERS", "Tracking", "tracking"]

TRACKERS = ("tensorboard", "mlflow")
_ARTEFACTS = ("report.html", "report.pdf", "report.json", "gate.json", "model-card.md")
_WITH_PICTURES = ("report.html", "report.pdf")
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # the address is the user's server, and nobody else's
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class _Client(Protocol):
    """What a tracker is told with."""

    def texts(self, said: Mapping[str, str]) -> None:
        """Names to short texts, once a run."""

    def numbers(self, said: Mapping[str, float], step: int) -> None:
        """Names to numbers at a step."""

    def file(self, path: Path) -> None:
        """One file of the run directory."""

    def close(self, ended: bool) -> None:
        """No more comes; whether the run came to its end."""


class _TensorBoard:
    """Event files beside the run directory, which holds records alone."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run.parent / "tensorboard" / run.name))

    def texts(self, said: Mapping[str, str]) -> None:
        for name, text in said.items():
            self._writer.add_text(name, text)

    def numbers(self, said: Mapping[str, float], step: int) -> None:
        for name, number in said.items():
            self._writer.add_scalar(name, number, step)

    def file(self, path: Path) -> None:
        if path.suffix == ".md":  # TensorBoard shows texts and keeps no files
            self._writer.add_text(path.name, path.read_text(encoding="utf-8"))

    def close(self, ended: bool) -> None:
        self._writer.close()


class _MLflow:
    """A run on the user's server, made by the client: `mlflow.start_run` would send names of user and script too."""

    def __init__(self, run: Path) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        client: Any = importlib.import_module("mlflow").MlflowClient()
        found = client.get_experiment_by_name("medharden")
        experiment = client.create_experiment("medharden") if found is None else found.experiment_id
        self._client, self._id = client, client.create_run(experiment, run_name=run.name).info.run_id

    def texts(self, said: Mapping[str, str]) -> None:
        for name, text in said.items():
            self._client.set_tag(self._id, name, text)

    def numbers(self, said: Mapping[str, float], step: int) -> None:
        for name, number in said.items():
            self._client.log_metric(self._id, name, number, timestamp=int(time.time() * 1000), step=step)

    def file(self, path: Path) -> None:
        self._client.log_artifact(self._id, str(path))

    def close(self, ended: bool) -> None:
        self._client.set_terminated(self._id, status="FINISHED" if ended else "FAILED")


class Tracking:
    """Tells a tracker, until it fails once; without one it tells nobody."""

    def __init__(self, kind: str = "", run: Path | None = None) -> None:
        """Connects to the tracker.

        Args:
            kind: one of `TRACKERS`, or "" for none.
            run: the run directory.
        """
        self._kind, self._run = kind, run or Path()
        self._client: _Client | None = None
        if kind:
            self._told(self._connect)

    def locked(self, protocol: str, seed: int) -> None:
        """What does not change: the protocol's digest, the version, the seed."""
        self._texts({"protocol": protocol, "medharden": __version__, "seed": str(seed)})

    def hardened(self) -> None:
        """Epochs and their probes."""
        if self._client is None:
            return
        record = RunFiles(self._run).record("harden.json", HardenRecord)
        self._texts({"model": record.hardened, "cohort": record.cohort, "precision": record.environment.precision})
        for e in record.epochs:
            said = {"loss": e.loss, "learning_rate": e.learning_rate, "radius": e.radius, "seconds": e.seconds}
            probed = {"train_robust": e.train_robust, "val_clean": e.val_clean, "val_robust": e.val_robust}
            self._numbers({f"harden/{name}": value for name, value in (said | probed).items()}, e.epoch)

    def evaluated(self) -> None:
        """Clean and attacked accuracy of each subject on the test split."""
        if self._client is None:
            return
        record = RunFiles(self._run).record("evaluation.json", Evaluation)
        for s in record.subjects:
            said = {f"test/{s.name}/clean": s.clean_accuracy, f"test/{s.name}/robust": s.robust_accuracy}
            self._numbers(said, 0)

    def decided(self, decision: GateDecision, pictures: bool) -> None:
        """The verdict, and the report as an artefact."""
        self._texts({"verdict": decision.verdict.value})
        for name in _ARTEFACTS:
            if (self._run / name).is_file() and not (pictures and name in _WITH_PICTURES):
                self._file(self._run / name)
        if pictures and self._client is not None:
            out.say(f"{self._kind}: the report holds pictures of patients and was not sent")

    def close(self, ended: bool) -> None:
        """No more comes."""
        if self._client is not None:
            self._told(self._client.close, ended)

    def _connect(self) -> None:
        self._client = _TensorBoard(self._run) if self._kind == "tensorboard" else _MLflow(self._run)

    def _texts(self, said: Mapping[str, str]) -> None:
        if self._client is not None:
            self._told(self._client.texts, said)

    def _numbers(self, said: Mapping[str, float], step: int) -> None:
        if self._client is not None:
            self._told(self._client.numbers, said, step)

    def _file(self, path: Path) -> None:
        if self._client is not None:
            self._told(self._client.file, path)

    def _told(self, tell: Any, *what: Any) -> None:
        try:
            tell(*what)
        except Exception as error:  # whatever a client raises; its text may hold an address with a password
            self._client = None
            warn(f"{self._kind}: {type(error).__name__}; the run goes on and is not tracked any further")


@contextmanager
def tracking(kind: str, run: Path) -> Iterator[Tracking]:
    """A tracker for the time of a run, of the first process alone.

    Args:
        kind: one of `TRACKERS`, or "" for none.
        run: the run directory.

    Raises:
        ModuleNotFoundError: the extra `track` is not installed.
        RunError: nothing says where MLflow's server is.
    """
    if kind:
        importlib.import_module(kind)
        if kind == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise RunError(
                "--track mlflow wants to know the server: expected its address in the environment variable "
                "MLFLOW_TRACKING_URI, found none"
            )
    told = Tracking(kind if ranks.first() else "", run)
    ended = False
    try:
        yield told
        ended = True
    finally:
        told.close(ended)
