"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CleanPath", "Fault", "SignatureFound", "Verification"]


@dataclass(frozen=True)
class Fault:
    """A file of a run directory that is not what it should be, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class SignatureFound:
    """A signature of the run directory.

    Attributes:
        file: where it lies below the run directory.
        name, role, meaning, reason: who signed, as what, and what the signature means, as the signer stated it.
        time: when, by the signer's clock (UTC).
        key: SHA-256 of the public key.
        verified: whether it was checked under a key that was given.
    """

    file: str
    name: str
    role: str
    meaning: str
    reason: str
    time: str
    key: str
    verified: bool


@dataclass(frozen=True)
class CleanPath:
    """Whether the released clean path is the original, run on data.

    Attributes:
        state_equal: parameters and buffers equal bit for bit.
        cases: cases answered by both; 0 where no data were given.
        logits_equal: all their logits equal bit for bit.
        max_abs_difference: largest absolute difference of any logit.
    """

    state_equal: bool
    cases: int
    logits_equal: bool
    max_abs_difference: float


@dataclass(frozen=True)
class Verification:
    """What a verification of a run directory found.

    Attributes:
        faults: every file that is wrong; none means that the directory is as it was recorded.
        signatures: those found, checked or not.
        covered: files whose digest the log or a signature holds.
        uncovered: files that nothing vouches for.
        notes: what a reader must know beside that, in sentences.
        verdict: the gate's, as recorded; empty where there is none.
        events, head: length of the log, and the hash of its last line.
        clean_path: None where no model was given.
    """

    faults: tuple[Fault, ...]
    signatures: tuple[SignatureFound, ...]
    covered: tuple[str, ...]
    uncovered: tuple[str, ...]
    notes: tuple[str, ...]
    verdict: str
    events: int
    head: str
    clean_path: CleanPath | None = None

    @property
    def verified(self) -> bool:
        """Whether nothing is wrong; it says nothing about signatures."""
        return not self.faults

    @property
    def signed(self) -> bool:
        """Whether a signature was checked under a key that was given."""
        return any(s.verified for s in self.signatures)
