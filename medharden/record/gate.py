"""Records of what the gate decided (`gate.json`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from medharden.record.common import Finding, Verdict

__all__ = ["ChangeRow", "Endpoint", "GateDecision", "IndependentTest", "MissingRow"]


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of the gate, with the numbers behind its verdict.

    Attributes:
        name: such as `accuracy` or `recall:pneumonia`.
        kind: `noninferiority`, `brier`, `kappa`, `grade_error`, `identity`, `robust_floor`, `robust_gain`, `referral`,
            `agreement`, or `subgroup`.
        estimate, lower, upper: in proportion units (0.01 is one point); the limits at `level`.
        level: two-sided confidence level.
        limit: what `lower` (or `upper`, for `referral`, `brier` and `grade_error`) is held against: `-margin`, floor,
            0, budget or margin.
        n, patients: cases behind it, and distinct patients, of whom those with copies of one image count as one.
        table: paired 2x2 counts (both right, only hardened right, only original right, both wrong), or empty.
        smallest_margin: smallest margin that this n could show at its observed discordance, or null.
        needed: cases needed to show the margin with power .80 at the observed discordance, or null.
        power: chance that so many cases show the margin at the observed discordance if nothing is truly lost, or null.
        method: the interval's name and source.
        justification: the protocol's clinical reason for the limit.
        comparator: `original`, or `authorised` where the last authorised release is what was compared with.
        role: `co-primary`, which must pass, or `alternative`, of which one suffices (multiplicity `any-holm`).
        tester: whose independent test gave these numbers, where they are worse than those of the run's own evaluation;
            else empty.
    """

    name: str
    kind: str
    verdict: Verdict
    estimate: float
    lower: float
    upper: float
    level: float
    limit: float
    n: int
    patients: int
    table: tuple[int, ...]
    smallest_margin: float | None
    needed: int | None
    method: str
    justification: str
    reason: str
    power: float | None = None
    comparator: str = "original"
    role: str = "co-primary"
    tester: str = ""


@dataclass(frozen=True)
class IndependentTest:
    """An independent test of the release beside the run's own evaluation, case by case.

    Attributes:
        name, role, key, seed: of the tester, as in the evaluation below `independent/`.
        evaluation: SHA-256 of that evaluation.
        platform, device: where it ran.
        verdict: on its numbers alone.
        cases: test cases, the same in both.
        answers_differ: of these, how many the release answers or refers otherwise in it.
        original_differs: likewise of the original.
        largest_difference: largest absolute difference of a probability of the release.
        attacked: cases that both attacked.
        robust: of these, how many stand in both, in the run's own evaluation alone, in this test alone, in neither.
        robust_correct, attacked_here: cases of its own draw that stand, of how many.
        decides: names of the endpoints that its numbers decide, since they are worse.
    """

    name: str
    role: str
    key: str
    seed: int
    evaluation: str
    platform: str
    device: str
    verdict: Verdict
    cases: int
    answers_differ: int
    original_differs: int
    largest_difference: float
    attacked: int
    robust: tuple[int, ...]
    robust_correct: int
    attacked_here: int
    decides: tuple[str, ...]


@dataclass(frozen=True)
class ChangeRow:
    """One change against the predecessor, held against the change control plan that was authorised with it.

    Attributes:
        change: of the kinds that a plan may foresee, or another.
        what: in words, with what differs.
        foreseen: whether the plan foresees such a change.
        description: as the plan has it; empty where it does not.
    """

    change: str
    what: str
    foreseen: bool
    description: str


@dataclass(frozen=True)
class MissingRow:
    """Cases of which no answer counts, for one reason.

    Attributes:
        kind: `unusable`, `uncertain` (the label is), or `referred`.
        reason: why.
        label: of the class or findings; `unknown` where the data don't tell.
        split: as the data give it, or `not split yet`.
        arm: `both`, or `release` where the release alone gives no answer.
        cases: how many.
    """

    kind: str
    reason: str
    label: str
    split: str
    arm: str
    cases: int


@dataclass(frozen=True)
class GateDecision:
    """The verdict (`gate.json`).

    Attributes:
        subgroups: changes of accuracy in the declared subgroups; of these a FAIL alone counts for the verdict.
        authorised: SHA-256 of the authorised release's `hardened.safetensors`, or empty where none was compared with.
        ledger: hash of the last line of the ledger of looks that was read, or empty where none was.
        artefact: SHA-256 of the exported model that was decided on; empty where it was the composite.
        protocol_required: digest of the protocol that whoever decided required; empty where the run's own was taken.
        missing: cases of which no answer counts, by reason, class and arm.
        worst_case: endpoints had every case left out been lost by the release, by the original, or by both.
        changes: against the authorised release, where its protocol holds a change control plan.
        independent: independent tests of the release; of each endpoint the worse outcome counts.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    protocol: str
    protocol_name: str
    margins_justified: bool
    hardened: str
    evaluation: str
    decided: str = ""
    findings: tuple[Finding, ...] = field(default=())
    subgroups: tuple[Endpoint, ...] = field(default=())
    authorised: str = ""
    ledger: str = ""
    protocol_required: str = ""
    artefact: str = ""
    independent: tuple[IndependentTest, ...] = ()
    missing: tuple[MissingRow, ...] = ()
    worst_case: tuple[Endpoint, ...] = ()
    changes: tuple[ChangeRow, ...] = ()
