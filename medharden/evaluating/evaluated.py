"""What an evaluation beside the run's own starts from: the release in hand is the one that was evaluated there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medharden.audit import RunFiles, canonical_json, digest_bytes
from medharden.data import Cohort
from medharden.errors import RunError
from medharden.models import HardenedClassifier, describe_hardened, hardened_bytes
from medharden.protocol import Protocol
from medharden.record import Evaluation, HardenRecord

__all__ = ["digests_in_hand", "require_evaluated"]


def digests_in_hand(model: HardenedClassifier, cohort: Cohort, protocol: Protocol) -> dict[str, Any]:
    """Digests of protocol, cohort and hardened model, as records and the log hold them."""
    return {
        "protocol": protocol.digest,
        "cohort": digest_bytes(canonical_json(cohort.record) + b"\n"),
        "hardened": digest_bytes(hardened_bytes(model, canonical_json(describe_hardened(model)) + b"\n")),
    }


def require_evaluated(run: Path, digests: Mapping[str, str]) -> Evaluation:
    """The run's own evaluation, where protocol, data and weights in hand are those of the run.

    Args:
        run: the run directory.
        digests: of `digests_in_hand`.

    Raises:
        RunError: they are not, or the run was not evaluated on them.
    """
    files = RunFiles(run)
    harden, evaluation = files.record("harden.json", HardenRecord), files.record("evaluation.json", Evaluation)
    if {harden.cohort, evaluation.cohort} != {digests["cohort"]}:
        raise RunError(
            f"{run.name} was hardened on other data, or under another pseudonym key; expected the same --data and key"
        )
    if {harden.protocol, evaluation.protocol} != {digests["protocol"]}:
        raise RunError(f"{run.name} was hardened or evaluated under another protocol than lies there")
    if {harden.hardened, evaluation.hardened} != {digests["hardened"]} or files.digest("cases.parquet") != (
        evaluation.cases
    ):
        raise RunError(f"{run.name} was not evaluated on the weights that lie there; run `medharden evaluate` first")
    return evaluation
