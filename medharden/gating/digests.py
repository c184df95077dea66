"""Whether the records of a run belong together: every digest that one holds of another, against what is there now."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record import Evaluation, HardenRecord

__all__ = ["RunDigests", "mismatches"]


@dataclass(frozen=True)
class RunDigests:
    """SHA-256 of a run's files as found when the gate opened them.

    Attributes:
        protocol: the digest of the protocol read from `protocol.yaml`: of what was decided, not how it was typed.
        cohort, harden, hardened, description, cases, evaluation: of the bytes of `cohort.json`, `harden.json`,
            `hardened.safetensors`, `hardened.json`, `cases.parquet` and `evaluation.json`.
    """

    protocol: str
    cohort: str
    harden: str
    hardened: str
    description: str
    cases: str
    evaluation: str


def mismatches(harden: HardenRecord, evaluation: Evaluation, digests: RunDigests) -> tuple[str, ...]:
    """One sentence for each file that is not the one a record was made from."""
    expected = (
        ("protocol.yaml", digests.protocol, "harden.json", harden.protocol),
        ("protocol.yaml", digests.protocol, "evaluation.json", evaluation.protocol),
        ("cohort.json", digests.cohort, "harden.json", harden.cohort),
        ("cohort.json", digests.cohort, "evaluation.json", evaluation.cohort),
        ("hardened.safetensors", digests.hardened, "harden.json", harden.hardened),
        ("hardened.json", digests.description, "harden.json", harden.description),
        ("hardened.safetensors", digests.hardened, "evaluation.json", evaluation.hardened),
        ("cases.parquet", digests.cases, "evaluation.json", evaluation.cases),
    )
    return tuple(
        f"{file} is not the one that {record} was made with: expected sha256 {recorded[:12]}, found {found[:12]}"
        for file, found, record, recorded in expected
        if found != recorded
    )
