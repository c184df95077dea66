"""Endpoints by the names that a reader says, in rows and in the sentences of findings and reasons."""

from __future__ import annotations

import re

from medharden.record import Endpoint
from medharden.reporting.source import RunRecords
from medharden.reporting.wording import FINDING_LABELS, endpoint_label

__all__ = ["endpoint_name", "label_of", "readable", "sentence_of"]

_METRIC = "(?:robust_|sensitivity|specificity|recall|referral).*"
_SUBGROUP = re.compile(rf"(?P<group>.+?=.*?)(?::(?P<metric>{_METRIC}))?", re.DOTALL)


def endpoint_name(name: str, records: RunRecords) -> str:
    """An endpoint's name as this run's reader says it."""
    label = endpoint_label(name, records.evaluation.classes, records.protocol.task.positive)
    return FINDING_LABELS.get(name, label) if records.protocol.task.multilabel else label


def label_of(e: Endpoint, records: RunRecords) -> str:
    """An endpoint's name with what it is compared with, or with its subgroup."""
    if e.kind.startswith("subgroup"):
        return _subgroup(e.name, records)
    label = endpoint_name(e.name.removeprefix(f"{e.comparator}:"), records)
    return label if e.comparator == "original" else f"{label}, against the {e.comparator} release"


def _subgroup(name: str, records: RunRecords) -> str:
    """`sex=F:sensitivity` as "sex: F, sensitivity (PNEUMONIA)"; of the group alone, its accuracy."""
    found = _SUBGROUP.fullmatch(name)
    group, metric = (found["group"], found["metric"]) if found else (name, None)
    said = endpoint_label(metric or "accuracy", records.evaluation.classes, records.protocol.task.positive)
    return f"{group.replace('=', ': ', 1)}, {said[:1].lower()}{said[1:]}"


def sentence_of(e: Endpoint) -> str:
    """The gate's reason without the endpoint's name before it, as a sentence."""
    before, colon, after = e.reason.partition(": ")
    text = after if colon and before.startswith(e.name) else e.reason
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


def readable(message: str, records: RunRecords) -> str:
    """A sentence of the gate in which endpoints go by their names in the record, with the names of their rows."""
    held = (*records.decision.endpoints, *records.decision.subgroups)
    names = {e.name: label_of(e, records) for e in held if ":" in e.name or "=" in e.name or "_" in e.name}
    if not names:
        return message
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w:=.-])(?:{known})(?= \(|[,.:;]|$)", lambda found: names[found[0]], message)
