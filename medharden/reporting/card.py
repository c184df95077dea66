"""The model card: Markdown with the metadata that model hubs read, from the records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from medharden.record import Endpoint
from medharden.reporting.clean import EndpointRow, endpoint_rows, summary, told_findings, told_reasons
from medharden.reporting.markdown import plain
from medharden.reporting.numbers import count
from medharden.reporting.provenance import model_rows
from medharden.reporting.robust import subject_label, subject_rows
from medharden.reporting.source import RunRecords
from medharden.reporting.statements import NOT_STATED, harm_rows, preprocessing_rows, risk_rows, stated_rows
from medharden.reporting.wording import article_15, threat_rows, untested
from medharden.text import neutral, neutral_lines

__all__ = ["model_card"]

_TAGS = ("medical", "medical-imaging", "adversarial-robustness", "medharden")
_CLAIMS = (
    "Robust accuracy is what the listed attacks left standing: an upper bound, no certificate.",
    "No clinical benefit, safety or fitness for use is claimed.",
    "Non-inferiority holds against this original, on this test split, with its population, sites and scanners.",
)


def model_card(records: RunRecords) -> bytes:
    """A card in the form of the Hugging Face Hub: YAML between two rules, then Markdown."""
    data = yaml.safe_dump(_metadata(records), sort_keys=False, allow_unicode=True, width=10_000)
    return neutral_lines(f"---\n{data}---\n\n{''.join(_body(records))}").encode()


def _metadata(records: RunRecords) -> dict[str, Any]:
    protocol, evaluation = records.protocol, records.evaluation
    released = evaluation.subject("composite")
    name = _line(protocol.title)
    metrics = [
        _metric("accuracy", "Clean accuracy", released.clean_accuracy),
        _metric("accuracy", f"Robust accuracy, {evaluation.threat}", released.robust_accuracy),
    ]
    metrics += [
        _metric("recall", _line(e.name), (e.table[0] + e.table[1]) / e.n)
        for e in records.decision.endpoints
        if e.name.partition(":")[0] in ("recall", "sensitivity", "specificity") and len(e.table) == 4
    ]
    stated = {"license": _line(protocol.report.license)} if protocol.report.license else {}
    return {
        **stated,
        "library_name": "medharden",
        "pipeline_tag": "image-classification",
        "tags": list(_TAGS),
        "metrics": ["accuracy", "recall"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {"type": "private", "name": f"Test split of the run, {released.n} cases"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def _metric(kind: str, name: str, value: float) -> dict[str, Any]:
    return {"type": kind, "name": name, "value": round(value, 6)}


def _line(text: str) -> str:
    """Text on one line, without what can't be shown."""
    return " ".join(neutral(text).split())


def _body(records: RunRecords) -> Iterator[str]:
    protocol, decision, evaluation = records.protocol, records.decision, records.evaluation
    seen = summary(records)
    yield f"# {plain(protocol.title)}\n\n"
    yield f"**{decision.verdict.value}** under the protocol {plain(protocol.name)}. {seen.meaning}\n"
    if seen.unjustified:
        yield f"\nMargins not justified. {seen.unjustified}\n"
    yield from _list("Reasons", tuple(told_reasons(records).values()))
    changed = [(r.label, r.of, r.before, r.after, r.newly_wrong, r.newly_right) for r in harm_rows(records)]
    if changed:
        heads = ("Wrong answers", "Cases", "Original", "Released", "Newly wrong", "Newly right")
        yield from _table("What changed for patients, without attack", heads, changed)
    yield from _terms("Model", model_rows(records))
    yield from _terms("Data", stated_rows(records))
    yield from _terms("Preprocessing", preprocessing_rows(protocol, records.cohort))
    yield from _performance(records)
    yield from _endpoints(decision.endpoints, endpoint_rows(records))
    yield from _terms("Threat model", threat_rows(protocol))
    yield from _attacks(records)
    yield from _list("Findings", [f"{f.severity}: {f.message}" for f in told_findings(records)])
    yield from _table("Hazards", ("Hazard", "Risk file", "Residual risk"), risk_rows(protocol))
    yield f"\nOverall residual risk: {plain(protocol.report.residual_risk or NOT_STATED)}\n"
    rows = article_15(protocol, evaluation.subject("composite").attacked)
    yield from _table(
        "Art. 15(5), Regulation (EU) 2024/1689",
        ("Attack", "Tested", "What that means"),
        [(r.name, "yes" if r.tested else "no", r.note) for r in rows],
    )
    yield from _list("Not tested", untested(protocol))
    yield from _list("Not claimed", _CLAIMS)
    yield "\n## Use\n\n```python\nfrom pathlib import Path\n\nfrom medharden import load_hardened\n\n"
    yield 'model = load_hardened(Path("run"))\nlogits = model(inputs)  # (N, C, *spatial) float32 in [0, 1] to (N, K)\n'
    answer = (
        "logits + model.decision_bias > 0" if protocol.task.multilabel else "(logits + model.decision_bias).argmax(1)"
    )
    yield f"answer = {answer}\n```\n"
    yield from _terms(
        "Provenance",
        (
            ("Original, file", records.harden.original.file),
            ("Original, state", records.harden.original.state),
            ("Hardened weights", evaluation.hardened),
            ("Protocol", protocol.digest),
            ("Evaluation", records.files["evaluation.json"]),
            ("Decision", records.files["gate.json"]),
        ),
    )
    yield f"\nWritten by medharden {plain(evaluation.environment.medharden)} from the run's records alone.\n"


def _performance(records: RunRecords) -> Iterator[str]:
    rows = [
        (s.label, f"{s.clean} {s.clean_interval} {s.clean_counts}", f"{s.robust} {s.robust_interval} {s.robust_counts}")
        for s in subject_rows(records)
    ]
    yield from _table("Performance, exact limits by patient", ("Model", "Clean", "Under all attacks together"), rows)


def _endpoints(endpoints: tuple[Endpoint, ...], rows: tuple[EndpointRow, ...]) -> Iterator[str]:
    shown = [
        (r.label, r.estimate, r.interval, r.limit, f"{count(e.n)} ({count(e.patients)})", r.verdict.value)
        for e, r in zip(endpoints, rows, strict=True)
    ]
    if shown:
        heads = ("Endpoint", "Estimate", "Limits", "Held against", "Cases (patients)", "Verdict")
        yield from _table("Endpoints", heads, shown)


def _attacks(records: RunRecords) -> Iterator[str]:
    released = next(s for s in subject_rows(records) if s.label == subject_label("composite"))
    rows = [(a.name, a.recipe, a.cases, a.wins, f"{a.rate} {a.interval}") for a in released.attacks]
    together = f"{released.wrong_before} wrong without an attack + {released.wins} that fell to an attack"
    left = f"{released.robust} left {released.robust_interval}"
    rows.append(("All together", together, released.attacked, released.wins, left))
    heads = ("Attack", "Recipe", "Cases", "Wins", "Success, 95 % Wilson interval")
    yield from _table("Attacks on the released model", heads, rows)


def _terms(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from _table(title, ("", ""), rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"\n## {title}\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n"
    for row in rows:
        yield f"| {' | '.join(plain(cell) for cell in row)} |\n"


def _list(title: str, entries: Sequence[str]) -> Iterator[str]:
    if entries:
        yield f"\n## {title}\n\n" + "".join(f"- {plain(entry)}\n" for entry in entries)
