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
        covered: files that a verified signature lists, and nothing else.
        recorded: other files whose digest the log holds; whoever can write there can write the log too.
        uncovered: files that nothing vouches for.
        rendered: report files that were rendered anew from the records, to the same bytes.
        elsewhere: report files that another version rendered, so that they can't be compared here.
        notes: what a reader must know beside that, in sentences.
        verdict: the gate's, as recorded; empty where there is none.
        protocol: the digest of the run's protocol, or empty where it can't be read.
        protocol_required: the digest that was required, or empty.
        events, head: length of the log, and the hash of its last line.
        clean_path: None where no model was given.
    """

    faults: tuple[Fault, ...]
    signatures: tuple[SignatureFound, ...]
    covered: tuple[str, ...]
    recorded: tuple[str, ...]
    uncovered: tuple[str, ...]
    rendered: tuple[str, ...]
    elsewhere: tuple[str, ...]
    notes: tuple[str, ...]
    verdict: str
    protocol: str
    protocol_required: str
    events: int
    head: str
    clean_path: CleanPath | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong; it says nothing about signatures."""
        return not self.faults

    @property
    def signed(self) -> bool:
        """Whether a signature was checked under a key that was given."""
        return any(s.verified for s in self.signatures)

    @property
    def verified(self) -> bool:
        """Whether nothing is wrong, and somebody whose key was given vouches for it."""
        return self.whole and self.signed
