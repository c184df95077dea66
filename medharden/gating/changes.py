"""A release against the change control plan of its predecessor: what changed, whether it was foreseen, its bars.

The plan that counts is the one that was authorised with the predecessor: a release can't write its own permission. Of
an exported form the predecessor is the run that it was exported from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from medharden.gating.authorised import AUTHORISED, Release, authorised_endpoints
from medharden.gating.endpoints import clean_endpoints
from medharden.gating.words import apart
from medharden.protocol import ChangeControl, Margin, Modification, Protocol
from medharden.record import CaseTable, ChangeRow, CohortRecord, Endpoint, Finding, HardenRecord, Verdict

__all__ = ["artefact_bars", "artefact_rows", "change_findings", "change_rows", "held_reason", "plan_endpoints"]

_SECTIONS = ("hardening", "fusion", "threat", "suite", "endpoints", "input", "model", "splits")
_UNFORESEEABLE = ("task", "cases", "columns", "subgroups", "shift", "intended_use")


def change_rows(
    protocol: Protocol, cohort: CohortRecord, harden: HardenRecord, release: Release
) -> tuple[ChangeRow, ...]:
    """Everything that differs from the predecessor, foreseen or not; empty where its protocol holds no plan.

    Names, titles and the `report` section of a protocol decide nothing and are not compared.
    """
    plan = release.protocol.change_control
    if not plan.modifications:
        return ()
    foreseen = {m.change: m for m in plan.modifications}
    rows = []
    for change, what in _changed(protocol, cohort, harden, release):
        known = foreseen.get(change)  # type: ignore[call-overload]  # what can't be foreseen is under no key
        rows.append(ChangeRow(change, what, known is not None, known.description if known else ""))
    return tuple(rows)


def plan_endpoints(
    protocol: Protocol, classes: tuple[str, ...], cases: CaseTable, release: Release, rows: tuple[ChangeRow, ...]
) -> Iterator[Endpoint]:
    """Accuracy and recall against the predecessor, at the strictest bar of the modifications that were made."""
    bars = _bars(release.protocol.change_control, {row.change for row in rows if row.foreseen})
    if wanted := _margins(bars):
        held = _with_margins(protocol, wanted)
        for e in authorised_endpoints(held, classes, cases, release):
            name = e.name.removeprefix(f"{AUTHORISED}:")
            yield replace(e, name=f"plan:{name}", reason=f"plan:{e.reason.removeprefix(f'{AUTHORISED}:')}")


def artefact_rows(protocol: Protocol, quantised: str) -> tuple[ChangeRow, ...]:
    """The one change that an exported form is, held against the plan of the run's own protocol.

    Args:
        protocol: the run's.
        quantised: such as `int8`; empty where the weights are as they were.
    """
    plan = protocol.change_control
    if not plan.modifications:
        return ()
    change = "quantisation" if quantised else "export"
    known = next((m for m in plan.modifications if m.change == change), None)
    what = f"the released model in another form, {quantised}" if quantised else "the released model in another form"
    return (ChangeRow(change, what, known is not None, known.description if known else ""),)


def artefact_bars(
    protocol: Protocol, classes: tuple[str, ...], table: CaseTable, agreement: Endpoint, rows: tuple[ChangeRow, ...]
) -> Iterator[Endpoint]:
    """The bars of an exported form: against the composite, and of the share that is answered otherwise."""
    bars = _bars(protocol.change_control, {row.change for row in rows if row.foreseen})
    if "agreement" in bars:
        bar = bars["agreement"]
        verdict, relation = Verdict.PASS, "is within"
        if agreement.upper > bar:
            verdict = Verdict.FAIL if agreement.estimate > bar else Verdict.INCONCLUSIVE
            relation = "exceeds"
        reason = (
            f"plan:agreement: upper limit of the share answered otherwise {apart(agreement.upper, relation, bar, '%')}"
        )
        name = "plan:agreement"
        yield replace(
            agreement, name=name, kind="referral", limit=bar, verdict=verdict, reason=reason, role="co-primary"
        )
    if wanted := _margins(bars):
        pair = {"original": table.subjects["composite"], "composite": table.subjects["artefact"]}
        for e in clean_endpoints(_with_margins(protocol, wanted), classes, replace(table, subjects=pair)):
            yield replace(e, name=f"plan:{e.name}", reason=f"plan:{e.reason}", comparator="composite")


def held_reason(plan: ChangeControl, rows: tuple[ChangeRow, ...]) -> str:
    """Why nothing passes where something changed that the plan does not foresee; or nothing."""
    unforeseen = [row.what for row in rows if not row.foreseen]
    if not unforeseen or plan.unforeseen != "hold":
        return ""
    return f"change control: not foreseen by the plan that was authorised: {'; '.join(unforeseen)}"


def change_findings(plan: ChangeControl, rows: tuple[ChangeRow, ...]) -> Iterator[Finding]:
    """What changed and was foreseen, and what was not."""
    if not rows:
        return
    foreseen = [f"{row.what} ({row.description})" for row in rows if row.foreseen]
    other = [row.what for row in rows if not row.foreseen]
    if foreseen:
        message = f"Changed against the predecessor, and foreseen by its plan: {'; '.join(foreseen)}."
        yield Finding("gate.change_foreseen", "info", message)
    if other:
        message = (
            f"Changed against the predecessor, and not foreseen by its plan: {'; '.join(other)}. A change outside the "
            "plan is not covered by what was authorised."
        )
        yield Finding("gate.change_not_foreseen", "warning", message)


def _changed(
    protocol: Protocol, cohort: CohortRecord, harden: HardenRecord, release: Release
) -> Iterator[tuple[str, str]]:
    before, after = release.protocol, protocol
    for split in ("train", "val"):
        then, now = ({(c.case, c.label, c.pixels) for c in record.split(split)} for record in (release.cohort, cohort))
        if then != now:
            more, fewer = len(now - then), len(then - now)
            yield "data", f"{split} cases: {more} new or changed, {fewer} gone or changed"
    if harden.original.state != release.harden.original.state:
        yield "original", "another original model"
    if before.seed != after.seed:
        yield "seed", f"the seed, {before.seed} to {after.seed}"
    for section in (*_SECTIONS, *_UNFORESEEABLE):
        then, now = (_section(of, section) for of in (before, after))
        if then != now:
            keys = [k for k in now if now[k] != then.get(k)] if isinstance(now, dict) else []
            yield section, f"the protocol's {section}" + (f" ({', '.join(keys[:6])})" if keys else "")
    if before.change_control != after.change_control:
        yield "plan", "the change control plan itself"
    stacks = [(e.medharden, e.code, e.python, e.packages) for e in (release.harden.environment, harden.environment)]
    if stacks[0] != stacks[1]:
        yield "tool", f"medharden {stacks[0][0]} to {stacks[1][0]}, or its source, libraries or Python"


def _section(protocol: Protocol, name: str) -> Any:
    content = protocol.model_dump(mode="json")[name]
    if name == "endpoints":
        content.pop("authorised")  # names the predecessor, which is another each time
    return content


def _bars(plan: ChangeControl, made: set[str]) -> dict[str, float]:
    """The strictest bar of each metric over the modifications that were made."""
    found: dict[str, float] = {}
    done: list[Modification] = [m for m in plan.modifications if m.change in made]
    for modification in done:
        for metric, bar in modification.bars.items():
            found[metric] = min(bar, found.get(metric, bar))
    return found


def _margins(bars: dict[str, float]) -> tuple[Margin, ...]:
    return tuple(
        Margin(metric=metric, margin=bars[metric], justification="the plan's bar")
        for metric in ("accuracy", "recall")
        if metric in bars
    )


def _with_margins(protocol: Protocol, wanted: tuple[Margin, ...]) -> Protocol:
    endpoints = protocol.endpoints.model_copy(update={"noninferiority": wanted, "multiplicity": "all"})
    return protocol.model_copy(update={"endpoints": endpoints})
