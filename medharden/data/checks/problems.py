"""What makes cases or a whole cohort unusable, and what a reader of the report must know of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from medharden.data.checks.identity import PatientNames
from medharden.data.checks.near import NearPair
from medharden.data.checks.splits import NAMELESS, SPLITS, Member, contradictions, leaks, shared_pixels
from medharden.data.formats.picture import TRANSPARENCY
from medharden.data.formats.stack import ASSUMED_AXIAL, FRAMES_AS_STORED, GANTRY_TILT
from medharden.data.sources.folder import Entry, Listing
from medharden.data.sources.labels import NO_LABEL
from medharden.data.view.case import READY, ReadCase
from medharden.errors import DataError, Problem
from medharden.protocol import Protocol
from medharden.record import Finding, Label, present

__all__ = [
    "check_classes",
    "check_coverage",
    "findings_of",
    "masked_findings",
    "pixel_problems",
    "refuse",
    "refuse_leaks",
    "shape_problems",
]

_MOST_LISTED = 20


def check_classes(listing: Listing, protocol: Protocol) -> tuple[str, ...]:
    """The classes, or the findings of a multi-label task, in the order of the model's outputs.

    Raises:
        DataError: fewer than two, or others than the protocol names.
    """
    found = listing.classes
    if protocol.task.multilabel:
        return found
    if len(found) < 2:
        unsaid = sum(problem.reason == NO_LABEL for problem in listing.problems)
        told = (
            f"; {unsaid} cases have a label that says none (blank, None, NA, ...), which is a class where task.classes "
            "names it"
        )
        raise DataError(f"expected two classes or more, found {len(found)}: {list(found)}{told if unsaid else ''}")
    wanted = protocol.task.classes
    if wanted is not None and set(wanted) != set(found):
        raise DataError(f"the protocol's task.classes are {list(wanted)}; the data have {_named(found)}")
    if protocol.task.positive is not None and protocol.task.positive not in found:
        raise DataError(f"the protocol's task.positive is {protocol.task.positive!r}; the data have {_named(found)}")
    return wanted or found


def _named(classes: Sequence[str]) -> str:
    """Class names, for a message; but not very many, which are rather those of patients or series."""
    if len(classes) <= _MOST_LISTED:
        return str(list(classes))
    return f"{len(classes)} different ones; are these folders, or the column of labels, really classes?"


def shape_problems(kept: Mapping[int, ReadCase]) -> tuple[tuple[int, ...], dict[int, str]]:
    """The cohort's input shape (C, *spatial), and the cases of another spatial shape than the most common one.

    The readers give three channels where the protocol asks for colour, or leaves it open and a case has colour.
    """
    if not kept:
        return (), {}
    spatial = Counter(case.shape[1:] for case in kept.values()).most_common(1)[0][0]
    bad = {
        n: f"is {_times(case.shape[1:])}, most are {_times(spatial)}; "
        + ("have the dataset resample all" if case.format == READY else "set input.size to resample all")
        for n, case in kept.items()
        if case.shape[1:] != spatial
    }
    channels = max(case.shape[0] for n, case in kept.items() if n not in bad)
    return (channels, *spatial), bad


def pixel_problems(
    kept: Mapping[int, ReadCase],
    labels: Sequence[Label],
    masked: Sequence[tuple[int, ...]],
    entries: Sequence[Entry],
    name: Callable[[str], str],
) -> dict[int, str]:
    """Cases whose pixels appear again under another label."""
    numbers = list(kept)
    members = [Member("", labels[n], kept[n].pixels, "", masked[n]) for n in numbers]
    return {
        numbers[one]: f"has the same pixels as {name(entries[numbers[other]].text)}, which has another label"
        for one, other in contradictions(members)
    }


def refuse(problems: Sequence[Problem], total: int, *, exclude: bool, counted: str = "") -> None:
    """Stops at unusable cases unless they may be left out; what `counted` says of many at once is not listed again.

    Raises:
        DataError: counts them all, lists the first 20, carries every one.
    """
    if problems and not exclude:
        advice = "mend or remove them, or set input.unusable: exclude in the protocol to leave them out on record"
        head = f"{counted}\n" if counted else ""
        head += f"{len(problems)} of {total} cases can't be used"
        listed = [problem for problem in problems if problem.reason not in counted]
        raise DataError(_listed(head, listed, advice), tuple(problems))


def refuse_leaks(
    members: Sequence[Member], patients: PatientNames, names: Sequence[str], copies: Sequence[NearPair] = ()
) -> None:
    """Stops where given splits share a patient, identical pixels or a copy of an image.

    Args:
        members: the cases, each with its split.
        patients: whose each case is.
        names: their pseudonyms.
        copies: pairs that count as copies, in one split or in two.

    Raises:
        DataError: with pairs of pseudonyms.
    """
    problems = [
        Problem(names[a], f"in {members[a].split} has {what} as {names[b]} in {members[b].split}")
        for a, b, what in leaks(members, patients.named > 0)
    ]
    looked = [
        Problem(
            names[p.first],
            f"in {members[p.first].split} looks like a copy of {names[p.second]} in {members[p.second].split}: "
            f"{p.bits} of 256 bits of their perceptual hashes differ",
        )
        for p in copies
        if members[p.first].split != members[p.second].split and members[p.first].pixels != members[p.second].pixels
    ]
    problems += looked
    if problems:
        advice = "keep each patient in one split, or leave the splits to medharden, which makes them by patient"
        if looked:
            advice += (
                "; look at what seem to be copies (`medharden inspect --locate CASE`), remove one of each, or name "
                "them under splits.reviewed in the protocol, with a justification, if they are of different patients"
            )
        if patients.respelt:
            advice += (
                f"; {patients.respelt} patients are written in more than one way (other capitals, blanks, zeros before "
                "a number, Unicode forms), and each counts as one"
            )
        head = f"the splits are not disjoint: {len(problems)} pairs of cases lie in two splits"
        raise DataError(_listed(head, problems, advice), tuple(problems))


def check_coverage(
    splits: Sequence[str],
    labels: Sequence[Label],
    classes: tuple[str, ...],
    *,
    masked: Sequence[tuple[int, ...]] = (),
    why: Sequence[str] = (),
) -> None:
    """Every split has cases of every class; of a multi-label task, with and without every finding.

    Args:
        splits: (N,) of each case.
        labels: (N,) of each case.
        classes: of the task.
        masked: (N,) findings that are left out of each case; a case says nothing of these. Empty where none is.
        why: what may have made the splits uneven, for the message.

    Raises:
        DataError: which split lacks what, with the numbers found.
    """
    lacking, advice = _lacking(splits, labels, classes, masked)
    if lacking:
        raise DataError("\n".join([f"{lacking}; {advice}", *why]))


def _lacking(
    splits: Sequence[str], labels: Sequence[Label], classes: tuple[str, ...], masked: Sequence[tuple[int, ...]]
) -> tuple[str, str]:
    """What the splits lack, and what to do; or nothing."""
    counts = Counter((split, k) for split, label in zip(splits, labels, strict=True) for k in present(label))
    if not all(isinstance(label, int) for label in labels):
        unsaid = Counter((split, k) for split, own in zip(splits, masked, strict=False) for k in own)
        return _lacking_findings(Counter(splits), counts, unsaid, classes)
    lacking = []
    for split in SPLITS:
        found = {name: counts[split, k] for k, name in enumerate(classes)}
        if not sum(found.values()):
            lacking.append(f"{split} has no cases")
        else:
            lacking += [f"{split} has no case of class {name!r}" for name, n in found.items() if not n]
    advice = "add cases, merge classes, or change the protocol's splits"
    return f"every split needs cases of every class: {_these(lacking, classes)}" if lacking else "", advice


def _lacking_findings(
    cases: Counter[str],
    counts: Counter[tuple[str, int]],
    unsaid: Counter[tuple[str, int]],
    findings: tuple[str, ...],
) -> tuple[str, str]:
    lacking = []
    for split in SPLITS:
        if not cases[split]:
            lacking.append(f"{split} has no cases")
            continue
        for k, name in enumerate(findings):
            if not counts[split, k]:
                lacking.append(f"{split} has no case with {name!r}")
            elif counts[split, k] + unsaid[split, k] == cases[split]:
                lacking.append(f"{split} has no case without {name!r}")
    head = "every split needs cases with and without every finding: "
    advice = "add cases, drop or merge findings, or change the protocol's splits"
    return head + "; ".join(lacking) if lacking else "", advice


def findings_of(
    kept: Mapping[int, ReadCase], members: Sequence[Member], protocol: Protocol, excluded: int
) -> list[Finding]:
    """What a reader must know of the data."""
    n = len(members)
    from_file = protocol.input.intensity.mode == "file"
    headed = [c for c in kept.values() if c.format in ("dicom", "nifti")]
    several = sum(c.windows > 1 for c in headed) if from_file else 0
    without = sum(c.windows == 0 for c in headed) if from_file else 0
    flat = sum(c.flat for c in kept.values())
    hidden = sum(TRANSPARENCY in c.notes for c in kept.values())
    unordered = sum(FRAMES_AS_STORED in c.notes for c in kept.values())
    tilted = sum(GANTRY_TILT in c.notes for c in kept.values())
    assumed = sum(ASSUMED_AXIAL in c.notes for c in kept.values())
    repeated = [{members[p].patient for p in places} for places in shared_pixels(members)]
    again = sum(len(patients) > 1 for patients in repeated)
    nameless = sum(min(patients).startswith(NAMELESS) and len(patients) == 1 for patients in repeated)
    found = [
        (several > 0, "data.several_windows", f"{several} of {n} files offer several windows; the first was used."),
        (
            without > 0,
            "data.no_window",
            f"{without} of {n} files have no window of their own; the whole range of their data type was used.",
        ),
        (flat > 0, "data.flat_inputs", f"{flat} of {n} cases hold one value only after the window was applied."),
        (
            hidden > 0,
            TRANSPARENCY,
            f"{hidden} of {n} pictures have pixels that their alpha channel hides or dims. It was left aside: the "
            "model is fed what lies beneath, which a viewer may show otherwise.",
        ),
        (
            unordered > 0,
            FRAMES_AS_STORED,
            f"{unordered} of {n} multi-frame DICOM files do not say where their frames lie; these were stacked as "
            "stored, and not turned.",
        ),
        (
            assumed > 0,
            ASSUMED_AXIAL,
            f"{assumed} of {n} volumes do not say which way their slices lie (Image Orientation); they were taken to "
            "be axial.",
        ),
        (
            tilted > 0,
            GANTRY_TILT,
            f"{tilted} of {n} volumes have slices that are offset against each other, as by a tilted gantry; they were "
            "stacked as they are, without resampling, so that the volume is sheared.",
        ),
        (
            again > 0,
            "data.duplicates",
            f"{again} sets of identical images appear under different patients within one split.",
        ),
        (
            nameless > 0,
            "data.duplicates",
            f"{nameless} sets of identical images name no patient; the cases of a set count as one patient's.",
        ),
        (excluded > 0, "data.excluded", f"{excluded:,} of {n + excluded:,} cases could not be used and were left out."),
    ]
    return [Finding(code, "warning", message) for applies, code, message in found if applies]


def masked_findings(members: Sequence[Member], classes: tuple[str, ...]) -> list[Finding]:
    """Of how many cases each finding is left out, where any is."""
    counts = Counter(k for m in members for k in m.masked)
    if not counts:
        return []
    said = ", ".join(f"{classes[k]} of {counts[k]}" for k in sorted(counts))
    message = (
        f"Findings that are left out of cases, because nobody knows whether they are there, of {len(members)} cases in "
        f"all: {said}. They count neither in training, nor for an attack, nor in any statistic."
    )
    return [Finding("data.masked_findings", "info", message)]


def _these(lacking: Sequence[str], classes: Sequence[str]) -> str:
    """What each split lacks; of very many classes how much that is, as `_named`."""
    if len(classes) <= _MOST_LISTED:
        return "; ".join(lacking)
    return f"found {len(lacking)} gaps; the data have {_named(classes)}"


def _listed(head: str, problems: Sequence[Problem], advice: str) -> str:
    lines = [f"  {p.case}: {p.reason}" for p in problems[:_MOST_LISTED]]
    if len(problems) > _MOST_LISTED:
        lines.append(f"  ... and {len(problems) - _MOST_LISTED} more")
    return "\n".join([f"{head}:" if lines else head, *lines, advice])


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
