"""`attack()`: attacks images in their files' own stored values, writes them as files, and scores what it wrote."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

from medharden.attacks import Criterion
from medharden.attacks.stored import Lattice, StoredResult, attack_stored
from medharden.attacks.victim import attackable, refers
from medharden.audit import describe_environment, guarded, write_atomic, write_record
from medharden.audit.screening import screen_words
from medharden.data import Case, Cohort
from medharden.data.stored.cases import StoredCases, read_back
from medharden.data.stored.dicom_writing import Marks
from medharden.data.stored.values import StoredValues, budget_in_counts, input_of, movable_values, to_input
from medharden.errors import DataError, OutputError, Problem, RunError
from medharden.protocol import Protocol, protocol_yaml
from medharden.record import AttackedCase, AttackOutcome, AttackRecord, Finding, Progress
from medharden.stats.sampling import stratified_sample

__all__ = ["Target", "attack"]

_IMAGES = "images"
_MOST_LISTED = 20
_FINEST = 3  # below so many counts, the suite's small probing steps round to none and say nothing of the gradient


@dataclass(frozen=True, eq=False)
class Target:
    """The model under attack.

    Attributes:
        name: `original`, or `composite` for a hardened model as released.
        view: its decision: the largest column is the answer, of findings each above 0.
        digest: of its parameters and buffers.
    """

    name: str
    view: nn.Module
    digest: str


@dataclass(frozen=True, eq=False)
class _Setting:
    """What stays the same from case to case."""

    target: Target
    cohort: Cohort
    files: StoredCases
    protocol: Protocol
    folder: Path
    device: str


def attack(
    target: Target,
    cohort: Cohort,
    files: StoredCases,
    protocol: Protocol,
    out: Path,
    *,
    split: str = "test",
    cases: Sequence[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> AttackRecord:
    """Attacks cases in stored values and writes `images/`, `manifest.csv`, `protocol.yaml` and `attack.json`.

    The folder appears whole or not at all. A case that is answered wrongly without attack is counted and not written.

    Args:
        target: the model; moved to the device.
        cohort: whose cases are attacked.
        files: the files behind them.
        protocol: its threat, in stored values: a budget in HU is rounded down to whole counts of each file. Its suite
            and its `suite.cases`, drawn by class, unless cases are named.
        out: a new or empty folder.
        split: whose cases are attacked where none is named.
        cases: pseudonyms of cases of any split.
        device: such as `cpu` or `cuda:0`; it must know float64.
        progress: called with `attack`, cases done and in all.

    Raises:
        DataError: cases that can't be attacked in stored values, every one with its reason.
        OutputError: the folder holds something, or can't be written.
        RunError: an unknown case or an empty split, or a device without float64.
        PrivacyError: a file would hold what the data say of who the patients are.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    rows = _chosen(cohort, protocol, split, cases)
    _require_float64(device)
    allowed = (protocol.model_dump_json(), *cohort.classes)
    with _appearing(out) as folder, guarded(cohort.identifiers, allowed), attackable(target.view.to(device).eval()):
        setting = _Setting(target, cohort, files, protocol, folder, device)
        rows, excluded = _usable(setting, rows)
        done: list[AttackedCase] = []
        results: list[StoredResult] = []
        if progress is not None:
            progress("attack", 0, len(rows))
        for number, row in enumerate(rows, start=1):
            case, result = _attack_case(setting, row, number)
            done.append(case)
            results.append(replace(result, stored=torch.empty(0)))  # they would grow with the cases
            if progress is not None:
                progress("attack", number, len(rows))
        record = AttackRecord(
            protocol=protocol.digest,
            model=target.digest,
            subject=target.name,
            split="named cases" if cases else split,
            classes=cohort.classes,
            threat=_threat_in_words(protocol, done),
            decision_threshold=protocol.decision_rule(len(cohort.classes)),
            cases=tuple(done),
            attacks=_outcomes(results, protocol),
            environment=describe_environment(device, torch.get_num_threads()),
            started=started,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            findings=_findings(setting, done, results, excluded, split if not cases else ""),
        )
        write_atomic(folder / "protocol.yaml", protocol_yaml(protocol).encode())
        write_atomic(
            folder / "manifest.csv", _manifest(cohort, rows, done, "" if protocol.task.missing == "mask" else "-1")
        )
        write_record(folder / "attack.json", record)
    return record


def _chosen(cohort: Cohort, protocol: Protocol, split: str, cases: Sequence[str]) -> list[int]:
    """Row numbers of the cases to attack."""
    if cases:
        places = {case.case: row for row, case in enumerate(cohort.cases)}
        unknown = [name for name in cases if name not in places]
        if unknown:
            raise RunError(
                f"{len(unknown)} of the named cases are not in these data under this key; expected pseudonyms of 16 "
                "hexadecimal digits, as the records of a run have them"
            )
        return [places[name] for name in dict.fromkeys(cases)]
    rows = cohort.indices(split)
    if not len(rows):
        raise RunError(f"the data have no case in the split {split!r}; expected train, val or test")
    labels = cohort.labels(rows).numpy()
    return [int(rows[n]) for n in stratified_sample(labels, protocol.suite.cases, protocol.seed)]


def _require_float64(device: str) -> None:
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError, AssertionError):
        raise RunError(
            f"device {device!r} is not there or has no float64, in which stored values are rescaled; use cpu or cuda"
        ) from None


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder beside the final one, which takes its name at the end; nothing is left where it doesn't come to that."""
    beside: Path | None = None
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(f"{out.name} holds something already; expected a new or empty folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield beside
        beside.chmod(0o755)
        beside.replace(out)
        beside = None
    except OSError as error:
        raise OutputError(f"{out.name} could not be written: {error.strerror}; expected a writable folder") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _usable(setting: _Setting, rows: list[int]) -> tuple[list[int], int]:
    """Looks at every case before any is attacked; what can't be is refused, or left out where that is allowed."""
    problems: dict[int, str] = {}
    for row in rows:
        try:
            stored_values = setting.files.stored_values(setting.cohort.cases[row])
            budget_in_counts(stored_values, setting.protocol.threat, setting.protocol.input)
        except DataError as error:
            problems[row] = str(error)
    kept = [row for row in rows if row not in problems]
    if problems and (setting.protocol.input.unusable == "refuse" or not kept):
        named = tuple(Problem(setting.cohort.cases[row].case, reason) for row, reason in problems.items())
        lines = [f"  {p.case}: {p.reason}" for p in named[:_MOST_LISTED]]
        raise DataError(
            "\n".join([f"{len(named)} of {len(rows)} cases can't be attacked in stored values:", *lines]), named
        )
    return kept, len(problems)


def _attack_case(setting: _Setting, row: int, number: int) -> tuple[AttackedCase, StoredResult]:
    """Attacks one case, writes its file and reads it back."""
    protocol, view, device = setting.protocol, setting.target.view, setting.device
    case = setting.cohort.cases[row]
    inputs, label = (t.to(device) for t in setting.cohort.batch([row]))
    stored_values = setting.files.stored_values(case)
    counts = budget_in_counts(stored_values, protocol.threat, protocol.input)
    channels = inputs.shape[1]
    lattice = Lattice(
        stored=torch.from_numpy(stored_values.stored).double().to(device),
        movable=torch.from_numpy(movable_values(stored_values, counts, protocol.input)).to(device),
        counts=counts,
        lowest=stored_values.lowest,
        highest=stored_values.highest,
        to_input=to_input(stored_values, protocol.input, channels),
    )
    seed = int.from_bytes(hashlib.sha256(f"{protocol.seed}/{case.case}".encode()).digest()[:4], "big")
    result = attack_stored(view, lattice, label, suite=protocol.suite.attacks, seed=seed, device=device)
    criterion = Criterion(label, refers=refers(view))
    clean, _ = _answer(view, criterion, lattice.to_input(lattice.stored)[None])
    search, found = _answer(view, criterion, lattice.to_input(result.stored.double().to(device))[None])
    moved = (result.stored.numpy() - stored_values.stored).__abs__()
    name = digest = ""
    file, difference = search, 0.0
    if clean:
        name, digest = _write(setting, case, stored_values, result, counts, number)
        written = read_back(setting.folder / name, protocol.input.dims, setting.files.room)
        again = input_of(written, protocol.input, channels)
        file, seen = _answer(view, criterion, again[None].to(device))
        difference = float((seen - found).abs().max())
    return AttackedCase(
        case=case.case,
        patient=case.patient,
        clean=clean,
        search=search,
        file=file,
        won_by=result.won_by,
        counts=counts,
        changed=int((moved > 0).sum()),
        largest=int(moved.max()),
        difference=difference,
        name=name,
        digest=digest,
    ), result


@torch.no_grad()
def _answer(view: nn.Module, criterion: Criterion, inputs: Tensor) -> tuple[bool, Tensor]:
    """Whether the model answers one case rightly or refers it, and its columns."""
    columns: Tensor = view(inputs)
    return not bool(criterion.won(columns).item()), columns


def _write(
    setting: _Setting, case: Case, stored_values: StoredValues, result: StoredResult, counts: int, number: int
) -> tuple[str, str]:
    """Writes one image; returns its name below the folder and its digest."""
    marks = Marks(
        case=case.case,
        patient=case.patient,
        number=number,
        change=f"Adversarial perturbation to test a classifier's robustness: stored values moved by {counts} at most",
        key=setting.files.key,
        origin=f"{setting.target.digest}/{setting.protocol.digest}",
    )
    written = setting.files.written(case, stored_values, result.stored.numpy(), marks)
    name = f"{_IMAGES}/{case.case}{written.suffix}"
    screen_words(Path(name).name, written.words)
    return name, write_atomic(setting.folder / name, written.data)


def _outcomes(results: Sequence[StoredResult], protocol: Protocol) -> tuple[AttackOutcome, ...]:
    """Each attack of the suite, summed over the cases."""
    summed = []
    for place, first in enumerate(results[0].outcomes):
        every = [result.outcomes[place] for result in results]
        kind = first.recipe.split(", linf eps")[0]
        recipe = f"{kind}, in shares of the budget that are rounded to whole stored counts, seed {protocol.seed}"
        summed.append(
            replace(
                first,
                recipe=recipe,
                cases=sum(o.cases for o in every),
                wins=sum(o.wins for o in every),
                seconds=sum(o.seconds for o in every),
            )
        )
    return tuple(summed)


def _threat_in_words(protocol: Protocol, done: Sequence[AttackedCase]) -> str:
    threat, counts = protocol.threat, sorted({case.counts for case in done})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"linf on stored values, eps {threat.eps:g} ({threat.unit}) = {span} counts of the file"


def _findings(
    setting: _Setting, done: Sequence[AttackedCase], results: Sequence[StoredResult], excluded: int, split: str
) -> tuple[Finding, ...]:
    """What a reader must know: of the threat, of the sample, and what the suite found case by case, counted."""
    found = []
    if setting.protocol.threat.space == "input":
        message = (
            "The protocol states its threat in the model's input. The files were attacked in their stored values, with "
            "its budget translated into whole counts of each."
        )
        found.append(Finding("attack.translated", "info", message))
    if split == "test":
        message = "The test split was opened. To choose a model by these figures is to look at it; use another split."
        found.append(Finding("attack.test_split_opened", "info", message))
    if split and len(done) < len(setting.cohort.indices(split)) - excluded:
        message = f"{len(done)} of {len(setting.cohort.indices(split))} cases of {split} were attacked, drawn by class."
        found.append(Finding("attack.sampled", "info", message))
    if excluded:
        message = f"{excluded} cases can't be attacked in stored values and were left out."
        found.append(Finding("attack.excluded", "warning", message))
    lost = sum(case.file and not case.search for case in done)
    if lost:
        message = f"{lost} images that fooled the model in the search don't as files; the files are what counts."
        found.append(Finding("attack.lost_in_file", "warning", message))
    counted: Counter[str] = Counter()
    said: dict[str, Finding] = {}
    for case, result in zip(done, results, strict=True):
        for finding in result.findings:
            if finding.code != "attack.misleading_gradient" or case.counts >= _FINEST:
                counted[finding.code] += 1
                said.setdefault(finding.code, finding)
    for code, cases in counted.items():
        message = f"{cases} of {len(done)} cases, of which one says: {said[code].message}"
        found.append(Finding(code, said[code].severity, message))
    return tuple(found)


def _manifest(cohort: Cohort, rows: Sequence[int], done: Sequence[AttackedCase], unknown: str) -> bytes:
    """A table of the written images as `--data` takes it, with a label, or a column a finding (masked: `unknown`)."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    several = cohort.record.multilabel
    table.writerow(["path", "patient", "split", *(cohort.classes if several else ["label"])])
    for row, case in zip(rows, done, strict=True):
        if case.name:
            label = cohort.batch([row])[1][0]
            said = [unknown if v != v else int(v) for v in label.tolist()] if several else [cohort.classes[int(label)]]
            table.writerow([case.name, case.patient, cohort.cases[row].split, *said])
    return text.getvalue().encode()
