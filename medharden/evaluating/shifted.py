"""Clean answers of original and release under the protocol's corruptions, case by case."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden import ranks
from medharden._version import __version__
from medharden.audit import open_sealed, write_sealed
from medharden.data import Cohort
from medharden.data.view.corruptions import corrupted, draw_of
from medharden.errors import RunError
from medharden.evaluating.resuming import key_of
from medharden.models import Classifier, HardenedClassifier, answers, state_digest
from medharden.protocol import Protocol
from medharden.record import Finding, Progress, ShiftedAnswers
from medharden.rows import Cases, select

__all__ = ["answers_under_shift"]

_STAGE = "corruptions"
_SECONDS = 60.0  # least time between two writes

Answered = npt.NDArray[np.int16]


def answers_under_shift(
    reference: Classifier,
    model: HardenedClassifier,
    inputs: Cases,
    cohort: Cohort,
    protocol: Protocol,
    batch_size: int,
    run: Path,
    progress: Progress | None = None,
) -> tuple[tuple[ShiftedAnswers, ...], tuple[Finding, ...]]:
    """Corrupts the cases one batch at a time, in each way that the protocol names, and has both models answer.

    What is drawn for a case comes from the protocol's seed and the digest of its pixels, so that it is the same in any
    order and any process. An interrupted evaluation of the same models, cases and protocol goes on where it stopped, to
    within a minute: answers lie in `evaluate.shift.partial`, sealed, until the evaluation is recorded.

    Args:
        reference: the original.
        model: the hardened model.
        inputs: (N, C, *spatial) float32 in [0, 1], all test cases; each process answers its share.
        cohort: of these test cases, in their order; its seal closes what lies in the run directory between.
        protocol: whose `shift` and seed hold.
        batch_size: cases a pass.
        run: the run directory.
        progress: called with `corruptions`, batches done and in all.

    Returns:
        The answers in the protocol's order, and a finding where what an earlier evaluation left could not be taken.
    """
    wanted = [(name, severity) for name in protocol.shift.corruptions for severity in protocol.shift.severities]
    if not wanted:
        return (), ()
    own, pixels = ranks.own(len(inputs)), [case.pixels for case in cohort.record.split("test")]
    mine = select(inputs, own.to(inputs.device))
    width = len(model.decision_bias) if protocol.task.multilabel else 1
    found = np.zeros((len(wanted), len(own), 2 * width + 1), dtype=np.int16)
    kept = _Kept(run, _key(reference, model, pixels, protocol), cohort.seal, found)
    refused = kept.load()
    starts = range(kept.done, len(own), batch_size)
    if progress:
        progress(_STAGE, kept.done, len(own))
    try:
        for start in starts:
            rows = slice(start, min(start + batch_size, len(own)))
            part, names = mine[rows], [pixels[n] for n in own[rows].tolist()]
            for place, (name, severity) in enumerate(wanted):
                draws = [draw_of(protocol.seed, each, name, severity) for each in names]
                changed = corrupted(part, name, severity, draws)
                found[place, rows] = _answered(reference, model, changed, protocol.task.multilabel)
            kept.keep(rows.stop)
            if progress:
                progress(_STAGE, rows.stop, len(own))
    finally:
        kept.write()
    every = ranks.in_order(torch.from_numpy(found).transpose(0, 1), own).numpy()
    return tuple(_record(*which, every[:, n], width) for n, which in enumerate(wanted)), _anew(refused)


@torch.no_grad()
def _answered(reference: Classifier, model: HardenedClassifier, inputs: Tensor, several: bool) -> Answered:
    """(n, 2 L + 1) the original's and the composite's answers, and whether it refers."""
    assessed, bias = model.assess(inputs), model.decision_bias
    columns = [answers(logits + bias, multilabel=several) for logits in (reference(inputs), assessed.logits)]
    columns.append(assessed.referred)
    return torch.cat([c.reshape(len(inputs), -1).to(torch.int16) for c in columns], dim=1).cpu().numpy()


def _record(name: str, severity: int, found: Answered, width: int) -> ShiftedAnswers:
    original, composite = found[:, :width].astype(np.int64), found[:, width : 2 * width].astype(np.int64)
    if width == 1:
        original, composite = original[:, 0], composite[:, 0]
    return ShiftedAnswers(name, severity, original, composite, found[:, -1].astype(np.bool_))


def _key(reference: Classifier, model: HardenedClassifier, pixels: Sequence[str], protocol: Protocol) -> str:
    return key_of(
        medharden=__version__,
        torch=str(torch.__version__),
        original=state_digest(reference),
        model=state_digest(model),
        fusion=str(model.fusion),
        pixels=list(pixels),
        protocol=protocol.digest,
        processes=ranks.count(),
    )


def _anew(refused: str) -> tuple[Finding, ...]:
    return (Finding("evaluation.begun_anew", "warning", f"{refused}; the corruptions began anew."),) if refused else ()


class _Kept:
    """How far the corruptions of one process came: the first cases' answers, under the key of what they depend on."""

    def __init__(self, run: Path, key: str, seal: bytes, found: Answered) -> None:
        beside = "" if ranks.first() else f".{ranks.rank()}"
        self.path, self.key, self.seal, self.found = run / f"evaluate.shift{beside}.partial", key, seal, found
        self.done, self._written, self._due = 0, 0, time.monotonic() + _SECONDS

    def load(self) -> str:
        """Takes what an interrupted evaluation left, or says why it is not taken; nothing where there is none."""
        try:
            data = open_sealed(self.path.parent, self.path.name, self.seal)
        except RunError as error:
            return str(error)
        if data is None:
            return ""
        head, _, values = data.partition(b"\n")
        said = json.loads(head)
        ways, _, columns = self.found.shape
        if said["key"] == self.key and len(values) == self.found.itemsize * ways * said["done"] * columns:
            self.done = self._written = said["done"]
            self.found[:, : self.done] = np.frombuffer(values, dtype=np.int16).reshape(ways, self.done, columns)
        return ""

    def keep(self, done: int) -> None:
        """Takes note of how many cases are answered, and writes from time to time."""
        self.done = done
        if time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Writes what was not written yet, if any.

        Raises:
            OutputError: the run directory can't be written to.
        """
        if self.done == self._written:
            return
        head = json.dumps({"key": self.key, "done": self.done}).encode() + b"\n"
        values = np.ascontiguousarray(self.found[:, : self.done]).tobytes()
        write_sealed(self.path, lambda stream: stream.write(head + values), self.seal)
        self._written, self._due = self.done, time.monotonic() + _SECONDS
