"""`medharden protocol plan`: from numbers, or from a cohort of which the test cases are counted and not answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from medharden.cli.console import out, stage_progress
from medharden.cli.protocols import strength_lines
from medharden.errors import ProtocolError
from medharden.planning import Plan, plan
from medharden.protocol import Protocol, load_protocol
from medharden.record import clusters_of, present
from medharden.stats import fewest_cases
from medharden.strength import strength

__all__ = ["run_plan"]

_UNNAMED = ("data.no_patients", "data.missing_patients")


def run_plan(
    name: str,
    cases: int | None,
    positives: int | None,
    discordance: float,
    loss: float,
    data: Path | None,
    workers: int,
    max_decoded: int,
    key_file: Path | None,
    cache: Path | None = None,
) -> None:
    """Prints what the cases can show of each margin.

    Raises:
        ProtocolError: numbers that contradict each other, or that say the same as the data.
    """
    protocol = load_protocol(name)
    notes: list[str] = []
    masked: dict[str, int] = {}
    if data is not None:
        if cases is not None or positives is not None:
            raise ProtocolError(
                "--data counts the cases itself; leave --cases and --positives out, or leave --data out"
            )
        cases, patients, counts, masked, notes = _counted(data, protocol, workers, max_decoded, key_file, cache)
        notes += _of_patients(protocol, cases, patients, discordance, loss)
    else:
        counts = _given(protocol, cases, positives)
    planned = plan(protocol, counts, cases=cases, discordance=discordance, loss=loss, masked=masked)
    lost = f"{100 * loss:g} % of cases are truly lost" if loss else "the true change is 0"
    notes.append(f"if {lost} and {100 * discordance:g} % of cases are answered with different success")
    notes += _together(planned)
    notes += _impossible(planned)
    notes.append("where patients have several cases, count patients: repeated cases tell less")
    if planned.unplanned:
        notes.append(f"not planned by counts: {', '.join(planned.unplanned)}")
    machine = {
        "protocol": protocol.name,
        "digest": protocol.digest,
        "alpha": planned.alpha,
        "power": 0.8,
        "expected_loss": loss,
        "joint_power": planned.joint,
        "joint_power_least": planned.joint_least,
        "discordance": discordance,
        "endpoints": [asdict(row) for row in planned.rows],
        "unplanned": list(planned.unplanned),
        "notes": notes,
        "strength": asdict(judged := strength(protocol)),
    }
    out.show([_table(planned), *(f"· {note}" for note in notes), *strength_lines(judged)], machine)


def _together(planned: Plan) -> list[str]:
    """The chance of all endpoints together, in words."""
    if planned.joint is None or planned.joint_least is None:
        return ["all endpoints together: count the cases of each class to have their joint power"]
    return [
        f"all of these together pass with power {planned.joint:.2f}, and {planned.joint_least:.2f} at least however "
        "they depend on each other; robustness and what else is not planned by counts lower it"
    ]


def _impossible(planned: Plan) -> list[str]:
    """What these cases can't show even if none is lost."""
    notes = []
    for row in planned.rows:
        least = fewest_cases(row.margin, alpha=planned.alpha)
        margin = f"the margin of {100 * row.margin:.3g} points"
        if row.cases is not None and row.cases < least:
            said = f"{row.endpoint}: {row.cases} cases can't show {margin} though none be lost"
            notes.append(f"{said}; it takes {least} at least")
        if row.needed is None:
            notes.append(f"{row.endpoint}: the expected loss uses up {margin}, whatever the cases")
    return notes


def _given(protocol: Protocol, cases: int | None, positives: int | None) -> dict[str, int]:
    if positives is None:
        return {}
    if cases is None or positives > cases:
        raise ProtocolError(f"--positives {positives} needs --cases of as many at least")
    names = protocol.task.classes or ()
    positive = protocol.task.positive
    if len(names) > 2 or protocol.task.multilabel:
        raise ProtocolError("--positives is for two classes; for more, or for findings, count the cohort with --data")
    negative = next((n for n in names if n != positive), "negative") if positive is not None else "negative"
    return {negative: cases - positives, positive or "positive": positives}


def _of_patients(protocol: Protocol, cases: int, patients: int, discordance: float, loss: float) -> list[str]:
    """What the patients show where a patient's cases are all answered alike."""
    notes = []
    if patients < cases:
        rows = plan(protocol, {}, cases=patients, discordance=discordance, loss=loss).rows
        accuracy = next(row for row in rows if row.endpoint == "accuracy")
        notes.append(
            "should each patient tell no more than one case, accuracy can show "
            f"{100 * (accuracy.smallest_margin or 0.0):.1f} points, and the protocol's margin with power "
            f"{accuracy.power:.2f}"
        )
    return notes


def _counted(
    data: Path, protocol: Protocol, workers: int, max_decoded: int, key_file: Path | None, cache: Path | None
) -> tuple[int, int, dict[str, int], dict[str, int], list[str]]:
    """Test cases, units, cases of each class and those that leave it open, and what is to be said; no model answers.

    Identical images count once.
    """
    from medharden.data import load_cohort, load_pseudonym_key

    key = load_pseudonym_key(key_file)
    with stage_progress() as progress:
        cohort = load_cohort(
            data, protocol, key=key, progress=progress, workers=workers, max_decoded=max_decoded, cache=cache
        )
    test, clusters = cohort.record.split("test"), clusters_of(cohort.record, protocol.splits.is_copy)
    once = {(case.pixels, case.label, case.masked): case for case in test}.values()
    numbers = Counter(k for case in once for k in present(case.label))
    open_ = Counter(k for case in once for k in case.masked)
    notes = [f"the test split has {len(test)} cases of {clusters.patients} patients"]
    if clusters.copies:
        copied = sum(map(len, clusters.copies))
        notes.append(f"{copied} of them are copies, which count once: {clusters.count} units are left")
    notes += [f.message for f in cohort.record.findings if f.code in _UNNAMED]
    counts, masked = ({name: of[k] for k, name in enumerate(cohort.classes)} for of in (numbers, open_))
    return len(once), clusters.count, counts, masked, notes


def _table(planned: Plan) -> Table:
    table = Table(
        "endpoint",
        "margin",
        "cases needed",
        "cases",
        "can show",
        "power",
        box=None,
        padding=(0, 1),
        title_justify="left",
    )
    for row in planned.rows:
        table.add_row(
            row.endpoint,
            f"{100 * row.margin:.3g} pp",
            "never" if row.needed is None else str(row.needed),
            "" if row.cases is None else str(row.cases),
            "" if row.smallest_margin is None else f"±{100 * row.smallest_margin:.1f} pp",
            "" if row.power is None else f"{row.power:.2f}",
        )
    return table
