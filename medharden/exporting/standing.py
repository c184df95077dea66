"""Whether a run's weights passed the gate: the verdict on record, held against the log and the files as they are."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.audit import RunFiles
from medharden.audit.independent import logged_tests
from medharden.errors import RunError
from medharden.record import Evaluation, GateDecision, HardenRecord, Verdict

__all__ = ["Standing", "standing_of"]


@dataclass(frozen=True)
class Standing:
    """What the gate said of these very weights.

    Attributes:
        verdict: of `gate.json`; empty where there is none that is of these files.
        lacking: why there is no PASS on these weights; empty where there is one.
        gate: SHA-256 of `gate.json`, or empty.
        decided: when, or empty.
    """

    verdict: str
    lacking: str
    gate: str = ""
    decided: str = ""

    @property
    def passed(self) -> bool:
        """Whether these weights passed."""
        return not self.lacking


def standing_of(files: RunFiles) -> Standing:
    """Reads the verdict; anything that doesn't hang together is no PASS.

    Raises:
        RunError: the log does not hang together.
    """
    if not files.has("gate.json"):
        return Standing("", "the run has no verdict; run `medharden gate` first")
    log = files.whole_log()
    try:
        decision = files.record("gate.json", GateDecision)
        harden = files.record("harden.json", HardenRecord)
        evaluation = files.record("evaluation.json", Evaluation)
        found = {name: files.digest(name) for name in _HELD}
        protocol = files.protocol().digest
    except RunError as error:
        return Standing("", f"a record is missing or unreadable: {error}")
    decided = [entry.data for entry in log.entries if entry.event == "gate.decided"]
    last = decided[-1] if decided else {}
    weights, description = found["hardened.safetensors"], found["hardened.json"]
    agree = {
        "gate.json is not the decision that the log recorded last": last.get("gate") == found["gate.json"],
        "the log records another verdict": last.get("verdict") == decision.verdict.value,
        "the verdict is on other weights": {decision.hardened, harden.hardened, evaluation.hardened} == {weights},
        "hardened.json is not the one that was hardened": harden.description == description,
        "the verdict is on another evaluation": decision.evaluation == found["evaluation.json"],
        "the case table is another": evaluation.cases == found["cases.parquet"],
        "the verdict is under another protocol": decision.protocol == protocol,
        "an independent test came after the verdict, or is not in it": {t.key for t in logged_tests(log)}
        == {t.key for t in decision.independent},
    }
    wrong = [reason for reason, right in agree.items() if not right]
    if wrong:
        return Standing("", f"{wrong[0]}; run `medharden gate` again, or `medharden verify` to see what changed")
    lacking = "" if decision.verdict is Verdict.PASS else f"the gate's verdict on these weights is {decision.verdict}"
    return Standing(decision.verdict.value, lacking, found["gate.json"], decision.decided)


_HELD = ("gate.json", "hardened.safetensors", "hardened.json", "evaluation.json", "cases.parquet")
