"""Records of a hardened model's exported form (`exports/NAME.json`), and of a run's artefact under evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record.common import Environment, Finding

__all__ = ["ARTEFACTS", "EXPORTS", "ExportRecord", "Parity"]

EXPORTS = "exports"
"""Folder of a run directory that exported models, their records and cards lie in."""

ARTEFACTS = "artefacts"
"""Folder of a run directory that holds a folder for each exported model that was evaluated: evaluation, cases, verdict.

It is named by the first 16 digits of the file's SHA-256.
"""


@dataclass(frozen=True)
class Parity:
    """The exported form against the composite in PyTorch, on the CPU, on inputs drawn within [0, 1].

    Attributes:
        cases: inputs compared, in batches of several sizes.
        largest: largest absolute difference of a logit.
        scale: largest absolute logit of the composite.
        answers: of the cases, how many are answered otherwise.
        referrals: of the cases, how many are referred otherwise.
    """

    cases: int
    largest: float
    scale: float
    answers: int
    referrals: int

    @property
    def share(self) -> float:
        """The largest difference in shares of the largest logit, where that is above 1."""
        return self.largest / max(1.0, self.scale)


@dataclass(frozen=True)
class ExportRecord:
    """What was exported, from what, and how it compares.

    Attributes:
        form: `onnx`, `pt2`, `torchscript` or `bundle`.
        quantised: `int8`, `fp16`, or empty.
        files: name below the run directory to SHA-256; the first is the artefact itself.
        hardened, description, protocol: digests of the weights, of `hardened.json` and of the protocol.
        gate: digest of `gate.json`, or empty where there is none that is of these weights.
        verdict: the gate's on these weights, or empty.
        gated: whether these weights passed; an artefact of others is marked as ungated.
        opset: of ONNX; 0 for other forms.
    """

    form: str
    quantised: str
    files: dict[str, str]
    hardened: str
    description: str
    protocol: str
    gate: str
    verdict: str
    gated: bool
    opset: int
    parity: Parity
    environment: Environment
    exported: str
    findings: tuple[Finding, ...] = ()
