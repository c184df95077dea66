"""What an interrupted evaluation leaves behind, and how the next one goes on from it.

Beside the run's records, `evaluate.SUBJECT.partial` holds how far the suite came against a subject, under a digest of
all that its result depends on, sealed. Of the attacked inputs it holds the bits in which they differ from the clean
ones, and no image. The files are removed once the evaluation is recorded.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from medharden.attacks import SuiteState
from medharden.attacks.soundness import Signs
from medharden.attacks.victim import Tally
from medharden.audit import canonical_json, digest_bytes, open_sealed, write_sealed
from medharden.record import AttackOutcome

__all__ = ["Partial", "clear", "key_of"]

_SECONDS = 60.0  # least time between two writes; longer where a write takes long
_PATIENCE = 20


def key_of(**depends: Any) -> str:
    """SHA-256 over everything that a suite's result depends on, as canonical JSON."""
    return digest_bytes(canonical_json(depends))


def clear(run: Path) -> None:
    """Removes what interrupted evaluations of a run left."""
    for path in run.glob("evaluate.*.partial"):
        path.unlink(missing_ok=True)


class Partial:
    """The file of one subject.

    Args:
        run: the run directory.
        subject: its name.
        inputs: (n, C, *spatial) float32 clean inputs of the attacked cases.
        key: from `key_of`; a file under another key is of another evaluation and is not read.
        seal: what the file is sealed under; empty writes none.
    """

    def __init__(self, run: Path, subject: str, inputs: Tensor, key: str, seal: bytes) -> None:
        self.path, self.seal = run / f"evaluate.{subject}.partial", seal
        self.inputs, self.device, self.key = inputs.cpu(), inputs.device, key
        self.state: SuiteState | None = None
        self.due = time.monotonic() + _SECONDS

    def load(self) -> SuiteState | None:
        """How far an interrupted evaluation came; null where there is none under this key.

        Raises:
            RunError: there is a file that is not sealed as this product's own.
        """
        data = open_sealed(self.path.parent, self.path.name, self.seal)
        if data is None:
            return None
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        if metadata["key"] != self.key:
            return None
        tensors = load(data)
        changed, margins = tensors["changed"], tensors["margins"]
        told = json.loads(metadata["state"])
        told["signs"]["tally"] = Tally(**told["signs"]["tally"])
        told["signs"]["black_box"] = tuple(told["signs"]["black_box"])
        told["signs"] = Signs(**told["signs"])
        told["outcomes"] = [AttackOutcome(**outcome) for outcome in told["outcomes"]]
        adversarial = (self.inputs.contiguous().view(torch.int32) ^ changed).view(torch.float32).to(self.device)
        return SuiteState(adversarial=adversarial, margins=margins, **told)

    def keep(self, state: SuiteState) -> None:
        """Takes note of the state, and writes it from time to time."""
        self.state = state
        if time.monotonic() >= self.due:
            self.write()

    def write(self) -> None:
        """Writes the last state that was noted, if any.

        Raises:
            OutputError: the run directory can't be written to.
        """
        if self.state is None:
            return
        started = time.monotonic()
        state = self.state
        # The exclusive or of the bits: exact, unlike a difference, and no picture.
        changed = state.adversarial.cpu().contiguous().view(torch.int32) ^ self.inputs.contiguous().view(torch.int32)
        told = {k: v for k, v in vars(state).items() if k not in ("adversarial", "margins", "signs", "outcomes")}
        told["signs"] = asdict(state.signs)
        told["outcomes"] = [asdict(outcome) for outcome in state.outcomes]
        data = save({"changed": changed, "margins": state.margins}, {"key": self.key, "state": json.dumps(told)})
        write_sealed(self.path, lambda stream: stream.write(data), self.seal)
        self.due = time.monotonic() + max(_SECONDS, _PATIENCE * (time.monotonic() - started))
