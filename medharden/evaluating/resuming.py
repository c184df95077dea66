"""What an interrupted evaluation leaves behind, and how the next one goes on from it.

Beside the run's records, `evaluate.SUBJECT.partial` holds how far the suite came against a subject, under a digest of
all that its result depends on, sealed. Of the attacked inputs it holds the bits in which they differ from the clean
ones, and no image. Each of several processes has a file for its share. They are removed once the evaluation is
recorded.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from medharden import ranks
from medharden.attacks import Signs, SuiteState
from medharden.audit import canonical_json, digest_bytes, open_sealed_stream, write_sealed
from medharden.record import AttackOutcome
from medharden.rows import Cases, Overlay, copy_of

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
        inputs: (n, C, *spatial) float32 clean inputs of the attacked cases, in memory or in a file.
        key: from `key_of`; a file under another key is of another evaluation and is not read.
        seal: what the file is sealed under; empty writes none.
    """

    def __init__(self, run: Path, subject: str, inputs: Cases, key: str, seal: bytes) -> None:
        beside = "" if ranks.first() else f".{ranks.rank()}"
        self.path, self.seal = run / f"evaluate.{subject}{beside}.partial", seal
        self.inputs, self.key = inputs, key
        self.state: SuiteState | None = None
        self.due = time.monotonic() + _SECONDS

    def load(self) -> SuiteState | None:
        """How far an interrupted evaluation came; null where there is none under this key.

        Raises:
            RunError: there is a file that is not sealed as this product's own.
        """
        stream = open_sealed_stream(self.path.parent, self.path.name, self.seal)
        if stream is None:
            return None
        with stream:
            said = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            if said.get("key") != self.key:
                return None
            adversarial = copy_of(self.inputs)
            margins = _read(stream, (len(self.inputs),), torch.float32)
            for row in said["rows"]:
                one, shape = slice(row, row + 1), (1, *self.inputs.shape[1:])
                adversarial[one] = _differing(self.inputs[one], _read(stream, shape, torch.int32)).view(torch.float32)
        told = said["state"]
        told["signs"] = Signs.from_told(told["signs"])
        told["outcomes"] = [AttackOutcome(**outcome) for outcome in told["outcomes"]]
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
        told = {k: v for k, v in vars(state).items() if k not in ("adversarial", "margins", "signs", "outcomes")}
        told["signs"] = state.signs.told()
        told["outcomes"] = [asdict(outcome) for outcome in state.outcomes]
        points = state.adversarial
        rows = sorted(points.written) if isinstance(points, Overlay) else list(range(len(points)))
        said = json.dumps({"key": self.key, "state": told, "rows": rows}).encode()

        def write(stream: BinaryIO) -> None:
            stream.write(len(said).to_bytes(8, "little") + said)
            stream.write(_bytes(state.margins))
            for row in rows:
                one = slice(row, row + 1)
                stream.write(_bytes(_differing(self.inputs[one], points[one])))

        write_sealed(self.path, write, self.seal)
        self.due = time.monotonic() + max(_SECONDS, _PATIENCE * (time.monotonic() - started))


def _differing(clean: Tensor, other: Tensor) -> Tensor:
    """The exclusive or of the bits, as int32 on the CPU: exact, unlike a difference, and no picture."""
    return clean.cpu().contiguous().view(torch.int32) ^ other.cpu().contiguous().view(torch.int32)


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()


def _read(stream: BinaryIO, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    data = bytearray(stream.read(4 * math.prod(shape)))
    return torch.frombuffer(data, dtype=dtype).reshape(tuple(shape))
