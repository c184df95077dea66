"""The identity endpoint: the clean path still is the original. A claim of its own, beside non-inferiority."""

from __future__ import annotations

from medharden.record import CaseTable, Endpoint, HardenRecord, Identity, Verdict

__all__ = ["identity_endpoint"]


def identity_endpoint(harden: HardenRecord, identity: Identity, cases: CaseTable) -> Endpoint:
    """Whether the clean path equals the original (a file, or a module) bit for bit, in state and on every test case."""
    verdict, text = _verdict(harden, identity, len(cases.case))
    return Endpoint(
        name="identity",
        kind="identity",
        verdict=verdict,
        estimate=identity.max_abs_difference,
        lower=identity.max_abs_difference,
        upper=identity.max_abs_difference,
        level=1.0,
        limit=0.0,
        n=identity.cases,
        patients=len(set(cases.patient)),
        table=(),
        smallest_margin=None,
        needed=None,
        method="bitwise comparison of state and clean logits; nothing is estimated, so the level is 1",
        justification="",
        reason=f"identity: {text}",
    )


def _verdict(harden: HardenRecord, identity: Identity, cases: int) -> tuple[Verdict, str]:
    hardened_apart = harden.clean_state_before != harden.clean_state_after or not harden.clean_logits_identical
    seen = f"(n = {identity.cases}, largest difference of a logit {identity.max_abs_difference:g})"
    if hardened_apart:
        return Verdict.FAIL, "hardening moved the clean path: its state or logits differ before and after"
    if identity.against not in ("file", "module"):
        return Verdict.INCONCLUSIVE, "the clean path was not compared with the original's file; evaluate with that file"
    if not (identity.state_equal and identity.logits_equal and identity.max_abs_difference == 0.0):
        return Verdict.FAIL, f"the clean path is not the original bit for bit {seen}"
    if identity.cases != cases:
        return Verdict.INCONCLUSIVE, f"logits were compared on {identity.cases} of {cases} test cases; expected all"
    if identity.against == "module":
        return Verdict.PASS, (
            f"the clean path equals the module that was given in Python bit for bit {seen}; no file of it is named, so "
            f"whoever checks this again needs weights of state {harden.clean_state_before[:16]}"
        )
    return Verdict.PASS, f"the clean path equals the original bit for bit {seen}"
