"""`compare()`: what changed from one run to another, field by field; counts and summaries alone, nothing of a case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medharden.audit import RunFiles
from medharden.audit.inventory import file_digests
from medharden.audit.records import parse_fields
from medharden.errors import RunError
from medharden.files import require_plain

__all__ = ["Change", "Comparison", "compare"]

_ABSENT = "absent"
_LEFT_OUT = {  # times, costs and what refers to other records: they differ between any two runs
    "harden.json": ("protocol", "cohort", "hardened", "description", "epochs", "cost", "started", "finished"),
    "evaluation.json": ("protocol", "cohort", "hardened", "cases", "started", "finished", "subjects", "findings"),
}
_NUMBERS = ("verdict", "estimate", "lower", "upper", "limit", "n", "patients")


@dataclass(frozen=True)
class Change:
    """One field that differs: its part of the run, its name, and both values as they are recorded."""

    part: str
    field: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """What differs between two runs.

    Attributes:
        changes: in the order protocol, model, data, settings, outcome.
        files: every file of either run: `same`, `different`, `only in the first` or `only in the second`.
        verdicts: both verdicts, empty where there is none.
    """

    changes: tuple[Change, ...]
    files: dict[str, str]
    verdicts: tuple[str, str]


def compare(first: Path, second: Path) -> Comparison:
    """Compares two run directories; reads records alone.

    Raises:
        RunError: one is no run directory, or holds a record that is none.
        ProtocolError: a protocol's file can't be read.
    """
    for run in (first, second):
        if not (run / "protocol.yaml").is_file():
            raise RunError(f"{run.name or run} is no run directory; expected the folder that `medharden harden` wrote")
        require_plain(run)
    one, other = RunFiles(first), RunFiles(second)
    before, after = _readable(one), _readable(other)
    changes = [
        Change(part, field, before[part].get(field, _ABSENT), after[part].get(field, _ABSENT))
        for part in before
        for field in (*before[part], *(f for f in after[part] if f not in before[part]))
        if before[part].get(field, _ABSENT) != after[part].get(field, _ABSENT)
    ]
    verdicts = tuple(str(_fields(files, "gate.json").get("verdict", "")) for files in (one, other))
    return Comparison(tuple(changes), _files(one, other), (verdicts[0], verdicts[1]))


def _fields(files: RunFiles, name: str) -> dict[str, Any]:
    """A record's fields, none where it is not there; what is there and no record is an error by its name."""
    return parse_fields(name, files.data(name)) if files.has(name) else {}


def _readable(files: RunFiles) -> dict[str, dict[str, Any]]:
    try:
        return _described(files)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(
            f"{files.run.name} holds a record that can't be read ({type(error).__name__}); `medharden verify` names it"
        ) from error


def _described(files: RunFiles) -> dict[str, dict[str, Any]]:
    """Part to field to value; fields of a part have dotted names."""
    harden, evaluation = (_fields(files, name) for name in ("harden.json", "evaluation.json"))
    cohort, gate = (_fields(files, name) for name in ("cohort.json", "gate.json"))
    made = {k: v for k, v in harden.items() if k not in (*_LEFT_OUT["harden.json"], "environment", "findings", "seed")}
    evaluated = {k: v for k, v in evaluation.items() if k not in (*_LEFT_OUT["evaluation.json"], "environment")}
    return {
        "protocol": dict(_flat(files.protocol_content())),
        "model": {k: v for k, v in _flat(made) if not k.startswith("fusion.frontier")},
        "data": _data(cohort),
        "settings": {"seed": harden.get("seed", _ABSENT)}
        | dict(_flat(harden.get("environment", {}), "harden."))
        | dict(_flat(evaluation.get("environment", {}), "evaluate.")),
        "evaluation": dict(_flat(evaluated)) | dict(_subjects(evaluation)),
        "gate": dict(_endpoints(gate)),
        "findings": _findings(harden, evaluation, cohort, gate),
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        elif isinstance(inner, list) and inner and all(isinstance(i, Mapping) for i in inner):
            for number, item in enumerate(inner):
                yield from _flat(item, f"{prefix}{name}[{number}].")
        else:
            yield f"{prefix}{name}", inner


def _data(cohort: Mapping[str, Any]) -> dict[str, Any]:
    """Counts by split and class, patients, and what else the cohort's record says beside its cases."""
    cases = cohort.get("cases", [])
    left_out = ("alike", "cases", "excluded", "findings", "formats")
    said = {k: v for k, v in cohort.items() if k not in left_out} | dict(_flat(cohort.get("formats", {}), "formats."))
    counts = Counter((c["split"], str(c["label"])) for c in cases)
    people: dict[str, set[str]] = {}
    for case in cases:
        people.setdefault(case["split"], set()).add(case["patient"])
    said |= {f"cases.{split}.class {label}": n for (split, label), n in sorted(counts.items())}
    said |= {f"patients.{split}": len(who) for split, who in sorted(people.items())}
    return said | {"cases": len(cases), "excluded": len(cohort.get("excluded", []))}


def _subjects(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for subject in evaluation.get("subjects", []):
        for field, value in subject.items():
            if field == "attacks":
                yield from ((f"{subject['name']}.wins of {a['name']}", a["wins"]) for a in value)
            elif field != "name":
                yield f"{subject['name']}.{field}", value


def _endpoints(gate: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if gate:
        yield "verdict", gate["verdict"]
    for group in ("endpoints", "subgroups"):
        for endpoint in gate.get(group, []):
            yield from ((f"{endpoint['name']}.{n}", endpoint[n]) for n in _NUMBERS if n in endpoint)


def _findings(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Codes alone: their messages may name cases by pseudonym."""
    return {f["code"]: f["severity"] for record in records for f in record.get("findings", [])}


def _files(first: RunFiles, second: RunFiles) -> dict[str, str]:
    one, other = file_digests(first), file_digests(second)
    words = {}
    for name in sorted({*one, *other}):
        if name not in other:
            words[name] = "only in the first"
        elif name not in one:
            words[name] = "only in the second"
        else:
            words[name] = "same" if one[name] == other[name] else "different"
    return words
