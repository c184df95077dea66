"""`draft()`: a commented protocol for a cohort and a model, in which what a person must decide is marked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from medharden.data.survey import Survey
from medharden.models import SourceView, view_fields
from medharden.planning import plan
from medharden.protocol import ModelSpec, Protocol, parse_protocol
from medharden.record import ModelRecord
from medharden.text import neutral

__all__ = ["Choices", "draft", "likely_positive"]

_NEGATIVE = ("normal", "healthy", "negative", "none", "no", "benign", "control", "0", "absent", "no finding")
_DISCORDANCE = 0.05
_TODO = "TO DO"
_UNCLEAR = {
    "uncertain": "labels of -1 leave the finding out of their case",
    "missing": "blanks leave the finding out of their case",
}


@dataclass(frozen=True)
class Choices:
    """What a person was asked, or takes as it is proposed.

    Attributes:
        name: of the protocol.
        positive: for two classes, which one is the finding; null asks recall of each by name.
        size: (H, W) or (D, H, W), or null for native size.
        accuracy, recall: margins, as proportions.
        each_case: how it is known that no two cases that name no patient are of one; "" leaves it open.
    """

    name: str
    positive: str | None
    size: tuple[int, ...] | None
    accuracy: float = 0.02
    recall: float = 0.05
    each_case: str = ""


def likely_positive(classes: tuple[str, ...]) -> str | None:
    """Of two classes the one that is no word for nothing found; null where that does not tell."""
    rest = [name for name in classes if not _is_negative(name.strip().lower())]
    return rest[0] if len(classes) == 2 and len(rest) == 1 else None


def _is_negative(name: str) -> bool:
    return name in _NEGATIVE or name.startswith(("no_", "no-", "no ", "non_", "non-", "not_", "not "))


def draft(
    seen: Survey,
    model: ModelRecord | None,
    choices: Choices,
    spec: ModelSpec | None = None,
    view: SourceView | None = None,
) -> str:
    """The protocol as YAML with its reasons as comments; it validates.

    Args:
        seen: what the data hold.
        model: the model's record, or null where none was given.
        choices: what is not to be seen in data or model.
        spec: how the model was loaded; what it states is written down.
        view: how the model's source makes its inputs, where it says so.

    Raises:
        ProtocolError: what was chosen contradicts itself.
    """
    lines = [*_head(seen, choices), *_task(seen, model, choices), *_files(seen), *_input(seen, model, choices, view)]
    lines += [*_model(spec or ModelSpec()), *_threat(seen)]
    lines += _splits(seen, choices)
    # margins need the rest: how many cases they take depends on alpha and on the classes
    trial = parse_protocol("\n".join([*lines, *_endpoints(seen, choices, None)]), "the draft")
    text = "\n".join([*lines, *_endpoints(seen, choices, trial), *_subgroups(seen)]) + "\n"
    parse_protocol(text, "the draft")
    return text


def _quoted(text: str) -> str:
    """A text as YAML: JSON's form of a string is one of YAML's."""
    return json.dumps(neutral(text), ensure_ascii=False)


def _head(seen: Survey, choices: Choices) -> Iterator[str]:
    kinds, total = ", ".join(seen.formats), sum(seen.cases.values())
    yield "# Written by `medharden protocol new` from data and model; every line is yours to change before a run."
    yield f"# Lines with {_TODO} want a decision that no program can make; `medharden protocol validate` checks it."
    yield f"# Seen: {total:,} cases ({seen.source}; {kinds}), {seen.tried} sampled, {seen.unreadable} unreadable."
    yield "schema_version: 1"
    yield f"name: {_quoted(choices.name)}"
    yield f"title: {_quoted(' or '.join(seen.classes) if len(seen.classes) < 4 else f'{len(seen.classes)} classes')}"
    yield f"intended_use: >-  # {_TODO}"
    yield "  Not stated yet. Name the finding, the population, the care setting and who reads the answer."


def _in_order_of(model: ModelRecord | None, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The data's classes in the order in which the model's file names its outputs; empty where it names no such."""
    plain = {"".join(c for c in name.casefold() if c.isalnum()) or name: name for name in classes}
    named = ["".join(c for c in name.casefold() if c.isalnum()) or name for name in model.class_names] if model else []
    return tuple(plain[name] for name in named) if sorted(named) == sorted(plain) and len(plain) == len(classes) else ()


def _task(seen: Survey, model: ModelRecord | None, choices: Choices) -> Iterator[str]:
    ordered = _in_order_of(model, seen.classes)
    names = ", ".join(map(_quoted, ordered or seen.classes))
    yield ""
    if ordered:
        yield "# In the order of the model's outputs, as its file names them."
    else:
        yield f"# {_TODO}: the names must stand in the order of the model's outputs; the data give them sorted."
    if model is not None and not seen.multilabel and model.classes != len(seen.classes):
        yield f"# The model has {model.classes} outputs and the data {len(seen.classes)} classes: one of both is wrong."
    yield "task:"
    if seen.multilabel:
        yield "  kind: multilabel  # a case may have several findings, or none"
    yield f"  classes: [{names}]"
    if choices.positive is not None:
        yield f"  positive: {_quoted(choices.positive)}  # its recall is sensitivity, the other's is specificity"
    for state, rule in (("uncertain", seen.rules.task.uncertain), ("missing", seen.rules.task.missing)):
        if rule != "refuse":
            yield f"  {state}: {rule}  # {_TODO}: {_UNCLEAR[state]}; or absent, present, exclude"


def _files(seen: Survey) -> Iterator[str]:
    """Which columns and files are meant, where the protocol that was taken says so or the data suggest it."""
    columns = seen.rules.columns.model_dump(mode="json", exclude_defaults=True)
    if columns:
        yield f"columns: {json.dumps(columns, ensure_ascii=False)}"
    cases = seen.rules.cases.model_dump(mode="json", exclude_defaults=True)
    if cases:
        yield f"cases: {json.dumps(cases, ensure_ascii=False)}  # files that look like masks are no cases"


def _input(seen: Survey, model: ModelRecord | None, choices: Choices, view: SourceView | None) -> Iterator[str]:
    times = " x ".join(map(str, seen.shape))
    yield ""
    told = {} if view is None or view.input.dims != seen.dims else view_fields(view)
    if view is not None and told:
        yield f"# As {view.whose} says: {', '.join(view.steps)}."
    else:
        yield f"# {_TODO}: what the model was trained on must stand here, or another model is judged."
    yield f"# Stored: {times}{'' if seen.alike else ' most often'}, values {seen.low:g} to {seen.high:g}."
    yield "input:"
    yield from _dims(seen)
    if seen.rules.input.channels_from:
        named = {channel.name: channel.files for channel in seen.rules.input.channels_from}
        yield f"  # {_TODO}: the modalities that were seen; they must be the model's channels, in the model's order."
        if model is not None and model.channels != len(named):
            yield f"  # The model takes {model.channels} channels, and these are {len(named)}."
        yield f"  channels_from: {json.dumps(named, ensure_ascii=False)}"
    elif model is not None:
        yield f"  channels: {'gray' if model.channels == 1 else 'rgb'}  # the model takes {model.channels}"
    elif seen.dims == 2:
        yield f"  channels: {'gray' if seen.channels == 1 else 'rgb'}"
    if seen.rules.input.frames != "one":
        yield f"  frames: {seen.rules.input.frames}  # {_TODO}: one frame of each file; `all` makes each a case"
    yield from (f"  {name}: {value}" for name, value in told.items())
    if choices.size is not None and not told:
        yield f"  size: [{', '.join(map(str, choices.size))}]  # every case is resampled to it"
    if "intensity" in told:
        return
    if _is_ct(seen):
        yield "  intensity: {mode: window, low: -160, high: 240}  # HU; a soft-tissue window, yours may be another"
    elif not _has_own_range(seen):
        yield "  intensity: {mode: percentile, low: 1, high: 99}  # of each case; the units vary from scan to scan"


def _dims(seen: Survey) -> Iterator[str]:
    """How many, and of series of slices how each slice would be a case."""
    if seen.files:
        yield f"  # The {seen.files:,} files are slices of {sum(seen.cases.values()):,} series: each series is a volume"
        yield "  # and a case. For a model of single slices write `dims: 2`, without `volume` and with two numbers as"
        yield "  # `size`: then each file is a case, and a class is that of its slice."
    if seen.dims == 3:
        yield "  dims: 3"
    series = seen.rules.input.volume.series
    if series != "one":
        other = "`each` makes each series a case" if series == "largest" else "`largest` takes the largest alone"
        yield f"  volume: {{series: {series}}}  # {_TODO}: examinations have several series; {other}"


def _model(spec: ModelSpec) -> Iterator[str]:
    """What the protocol that was named says of the model: a network of other arguments is another network."""
    stated = spec.model_dump(mode="json", exclude_defaults=True)
    if stated:
        yield f"model: {json.dumps(stated, ensure_ascii=False)}"


def _is_ct(seen: Survey) -> bool:
    return seen.modality.upper() == "CT" or (any("dicom" in kind for kind in seen.formats) and seen.low < -200)


def _has_own_range(seen: Survey) -> bool:
    """Whether `file` can read every case: pictures, archives, and DICOM with windows."""
    pictures = all(kind.split()[0] in ("png", "jpeg", "tiff", "npz", "npy", "archive") for kind in seen.formats)
    return seen.windows or (pictures and seen.dims == 2) or seen.source == "npz"


def _threat(seen: Survey) -> Iterator[str]:
    yield ""
    if _is_ct(seen):
        yield "# The attacker may move each value by 4 HU, about the noise of a low-dose scan."
        yield "threat: {norm: linf, eps: 4, unit: HU}"
        yield "hardening: {photometric: 0}  # Hounsfield units are calibrated"
    elif _has_own_range(seen) and seen.dims == 2:
        yield "# The attacker may move each value by 2 of 255 grey levels, which nobody sees."
        yield "threat: {norm: linf, eps: 2, unit: 1/255}"
    else:
        width = 0.01 * (seen.high - seen.low)
        yield "# The attacker may move each value by 1 % of the model's input range; in stored units, where a case"
        yield f"# spans all that was seen, by about {width:.3g}."
        yield "threat: {norm: linf, eps: 0.01, unit: input}"


def _splits(seen: Survey, choices: Choices) -> Iterator[str]:
    sizes = ", ".join(f"{name} {count:,}" for name, count in seen.cases.items())
    yield ""
    yield f"# Splits {'are given by the data' if seen.given else 'are made by patient'}: about {sizes}."
    if seen.rules.splits.patient_from is not None:
        yield f"# {_TODO}: paths look as if they named patients so; a patient is never in two splits."
        yield f"splits: {{patient_from: {_quoted(seen.rules.splits.patient_from)}}}"
        return
    if seen.patients:
        yield "# Cases name patients; a patient is never in two splits."
        return
    if choices.each_case:
        yield "splits:"
        yield f"  patients: {{unit: each_case, reason: {_quoted(choices.each_case)}}}"
        return
    yield f"# {_TODO}: no case names a patient, so a verdict is INCONCLUSIVE at best. Name the column of patients under"
    yield "# `columns`, or state how it is known that no two cases are of one patient:"
    yield "# splits:"
    yield "#   patients: {unit: each_case, reason: ...}"


def _endpoints(seen: Survey, choices: Choices, trial: Protocol | None) -> Iterator[str]:
    needed = {} if trial is None else _needed(seen, trial)
    yield ""
    yield f"# {_TODO}: each margin is the largest loss that is clinically acceptable, and wants a clinician's"
    yield "# `justification:` beside it. Until then every verdict says that it rests on a convention. Cases needed:"
    yield f"# power 80 %, if nothing is truly lost and {100 * _DISCORDANCE:g} % of cases change sides."
    yield "endpoints:"
    yield "  noninferiority:"
    yield f"    - {{metric: accuracy, margin: {choices.accuracy:g}}}{needed.get('accuracy', '')}"
    yield f"    - {{metric: recall, margin: {choices.recall:g}}}{needed.get('recall', '')}"
    yield "    - {metric: brier, margin: 0.02}  # calibration; of the squared error"
    yield f"  robustness:  # {_TODO}: what must stand under attack, and how much more than with the original"
    yield "    floor: 0.5"
    yield "    class_floor: 0.3"
    yield "    gain: 0.2"


def _needed(seen: Survey, protocol: Protocol) -> dict[str, str]:
    """By metric, the comment that says how many test cases a margin needs and how many there are."""
    cases = seen.cases["test"]
    counts = {name: int(share * cases) for name, share in seen.shares.items()}
    if not seen.multilabel and sum(counts.values()) > cases:
        counts = {}
    planned = plan(protocol, counts, cases=cases, discordance=_DISCORDANCE)
    said: dict[str, str] = {}
    for row in planned.rows:
        metric = "accuracy" if row.endpoint == "accuracy" else "recall"
        if row.needed is not None and row.cases is not None:
            part = f"{row.endpoint if metric == 'recall' else 'needs'} {row.needed:,} test cases, {row.cases:,} at hand"
            said[metric] = f"{said[metric]}; {part}" if metric in said else f"  # {part}"
    return {metric: text if len(text) < 300 else f"{text[:297]}..." for metric, text in said.items()}


def _subgroups(seen: Survey) -> Iterator[str]:
    yield ""
    if seen.groups:
        named = ", ".join(map(_quoted, seen.groups))
        yield "# Columns of few values that were seen; harm to a group by these is looked for."
        yield f"subgroups: {{columns: [{named}]}}"
    else:
        yield "# No column of few values was seen, so harm to a subgroup (sex, site, scanner) can't be looked for."
