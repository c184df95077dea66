"""A finished run whose gate decided on many endpoints, with reasons, findings, worst cases and subgroups to match."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml
from reporting_records import make_run, rewrite

from medharden.audit import read_record
from medharden.protocol import parse_protocol
from medharden.record import Endpoint, Finding, GateDecision, MissingRow, Verdict

CORRUPTIONS = ("blur", "noise", "brightness-up", "brightness-down", "contrast-up", "contrast-down", "jpeg", "rotation")
LONG_REASON = "so that a reader who is in a hurry must go on and on until at last it ends, " * 4


def many_endpoints(
    run: Path,
    *,
    classes: tuple[str, ...] = ("normal", "pneumonia"),
    unmet: int = 0,
    failed: int = 0,
    title: str = "Pneumonia on frontal chest radiographs",
    justified: bool = True,
) -> Path:
    """A run with about 15 endpoints of two classes and more of many, the last of them not met.

    Args:
        run: to be written.
        classes: each has its endpoints.
        unmet: how many endpoints are INCONCLUSIVE.
        failed: how many FAIL, besides.
        title: of the protocol.
        justified: whether margins have their reasons.
    """
    make_run(run, classes=classes, title=title, justified=justified)
    protocol = yaml.safe_load((run / "protocol.yaml").read_text(encoding="utf-8"))
    protocol["report"] = {"population": f"Adults of several emergency departments, {LONG_REASON}"}
    protocol["shift"] = {"corruptions": list(CORRUPTIONS), "severities": [1, 3]}
    protocol["subgroups"] = {"columns": ["site", "scanner", "sex"]}
    text = yaml.safe_dump(protocol, sort_keys=False)
    (run / "protocol.yaml").write_text(text, encoding="utf-8")
    held = read_record(run / "gate.json", GateDecision)
    accuracy = next(e for e in held.endpoints if e.name == "accuracy")
    floor = next(e for e in held.endpoints if e.name == "robust_floor")
    recalls = [e.name for e in held.endpoints if e.kind == "noninferiority" and e.name != "accuracy"]
    shifted = [
        replace(accuracy, name=f"shift:{corruption}:{metric}", kind="shift")
        for corruption in CORRUPTIONS
        for metric in ("accuracy", *recalls)
    ]
    attacked = [
        changed
        for name in recalls
        for changed in (
            replace(floor, name=f"robust_{name}"),
            replace(accuracy, name=f"robust_{name}_change", kind="robust_change"),
        )
    ]
    reported = replace(accuracy, name="referred_wrong:accuracy", role="reported")
    endpoints = [*held.endpoints, *attacked, *shifted, reported]
    last = len(endpoints) - 2
    for k in range(unmet + failed):
        verdict = Verdict.FAIL if k < failed else Verdict.INCONCLUSIVE
        e = endpoints[last - k]
        reason = f"{e.name}: limit does not reach what the protocol asks, {LONG_REASON}"
        endpoints[last - k] = replace(e, verdict=verdict, reason=reason)
    bad = tuple(e for e in endpoints if e.verdict is not Verdict.PASS)
    verdict = Verdict.FAIL if failed else Verdict.INCONCLUSIVE if unmet else Verdict.PASS
    groups = tuple(
        replace(accuracy, name=f"site={k}:{name}", kind="subgroup", reason=f"site={k}:{name}: as it is", n=40)
        for k in range(6)
        for name in recalls
    )
    rewrite(
        run,
        "gate.json",
        GateDecision,
        protocol=parse_protocol(text, "protocol.yaml").digest,
        verdict=verdict,
        reasons=tuple(e.reason for e in bad),
        endpoints=tuple(endpoints),
        findings=tuple(Finding(f"x.y{k}", "warning", f"Number {k} of many: {LONG_REASON}") for k in range(6)),
        subgroups=groups,
        missing=(
            MissingRow("unusable", "pixel data is truncated", classes[0], "test", "both", 2),
            MissingRow("uncertain", "the label is uncertain", classes[1], "test", "both", 1),
        ),
        worst_case=worst_case(tuple(endpoints)),
    )
    return run


def worst_case(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Accuracy loses in each arm, robust accuracy in one, and the gain has many cases; all else stays."""
    found = []
    for arm in ("against_release", "against_original", "against_both"):
        for e in endpoints:
            if e.kind in ("identity", "shift") or e.role == "reported":
                continue
            moved = e
            if e.name == "accuracy":
                moved = replace(e, n=e.n + 3, estimate=e.estimate - 0.005, lower=e.lower - 0.005)
            if e.name == "robust_floor" and arm == "against_release":
                moved = replace(e, n=e.n + 3, lower=0.49, verdict=Verdict.INCONCLUSIVE)
            if e.name == "robust_gain":
                moved = replace(e, n=e.n + 10_000, table=(8_000, 1_049, 1_002, 549), verdict=Verdict.INCONCLUSIVE)
            found.append(replace(moved, name=f"{arm}:{e.name}", reason=f"{arm}:{e.reason}", role="reported"))
    return tuple(found)
