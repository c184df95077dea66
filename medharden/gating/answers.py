"""Two sets of answers to the same cases, read from CSV files and joined by case: what `compare` starts from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medharden.delimited import BrokenRowError, delimited
from medharden.errors import DataError
from medharden.patients import folded, patient_identity
from medharden.record import CaseTable, SubjectTable

__all__ = ["COLUMNS", "AnswerColumns", "PairedAnswers", "read_answers"]

LARGEST_FILE = 64 * 2**20
_MOST_CLASSES = 100

COLUMNS: dict[str, tuple[str, ...]] = {
    "case": ("case", "caseid", "image", "imageid", "path", "file", "filename", "id"),
    "patient": ("patient", "patientid", "subject", "subjectid"),
    "label": ("label", "truth", "target", "class", "reference"),
    "answer": ("answer", "predicted", "prediction"),
    "score": ("score", "probability"),
}
"""Part of a file to the column names that are taken for it, without case, blanks, `-` and `_`."""

Row = dict[str, str]


@dataclass(frozen=True)
class AnswerColumns:
    """How the files say what they say.

    Attributes:
        named: part (`case`, `patient`, `label`, `answer`, `score`) to the column that holds it, where it is stated.
        classes: names in order; null takes those of the reference, sorted.
        positive: of two classes, the one that a `score` speaks for, and whose recall is sensitivity; or null.
        threshold: the score from which the positive one is answered, where a file holds no answers; null is 0.5, for
            probabilities alone.
    """

    named: dict[str, str]
    classes: tuple[str, ...] | None = None
    positive: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class PairedAnswers:
    """Both sets on the same cases, in the order of the old one.

    Attributes:
        table: subjects `original` (the old set) and `composite` (the new one); an answer of -1 is none. Probabilities
            are scores, (N, C), or of no meaning where `scored` is False.
        classes, positive: names.
        scored: whether both sets have a score for every case.
        probable: whether those scores are probabilities: in [0, 1], adding up to 1.
        unnamed: cases that name no patient.
        notes: what was assumed or counted otherwise.
        inputs: SHA-256 of each file read, by its part.
    """

    table: CaseTable
    classes: tuple[str, ...]
    positive: str | None
    scored: bool
    probable: bool
    unnamed: int
    notes: tuple[str, ...]
    inputs: dict[str, str]


@dataclass(frozen=True)
class _File:
    """One CSV file: which part it is, its rows by case, and which column holds what."""

    part: str
    rows: dict[str, Row]
    roles: dict[str, str]
    scores: dict[str, str]
    digest: str

    def cell(self, case: str, role: str) -> str:
        return self.rows[case][self.roles[role]]


def read_answers(old: Path, new: Path, truth: Path | None, asked: AnswerColumns) -> PairedAnswers:
    """Reads two files of answers, and a third with the reference where they don't hold it.

    Each names the case in every row, and holds an answer, a score of the positive class, or a score of each class
    (`score:CLASS`). Labels and patients may stand in any of the files, and must agree where they stand in several. A
    blank answer counts as none, which is not right.

    Raises:
        DataError: a file that is no such table, cases that are not the same in all files, a label or patient that
            differs between them, an answer that names no class. No message names a case or a patient.
    """
    files = [_read(part, path, asked) for part, path in (("old", old), ("new", new), ("truth", truth)) if path]
    answers = files[:2]
    cases = _same_cases(files)
    labels = _agreed(files, "label", cases, str.strip)
    if labels is None:
        raise DataError("no file has a column with the true class of each case (label, truth, target); add it to one")
    if "" in labels:
        raise DataError(f"{labels.count('')} of {len(labels)} cases have no label; leave them out of all files")
    classes = _classes(asked, labels, files)
    patients = _agreed(files, "patient", cases, patient_identity) or [""] * len(cases)
    notes: list[str] = []
    outcomes = [_outcome(file, cases, classes, asked, notes) for file in answers]
    scores = [found for _, found in outcomes if found is not None]
    scored = len(scores) == 2
    if not scored:
        notes.append(
            f"{'one set has' if scores else 'the sets have'} no score for every case: AUROC and Brier left out"
        )
    blank = np.zeros((len(cases), len(classes)))
    index = {name: k for k, name in enumerate(classes)}
    table = CaseTable(
        case=tuple(cases),
        patient=tuple(who or f"\0{n}" for n, who in enumerate(patients)),  # no identity holds a control character
        label=np.array([index[label] for label in labels], dtype=np.int64),
        attacked=np.zeros(len(cases), dtype=np.bool_),
        subjects={
            name: _subject(predicted, blank if found is None else found)
            for name, (predicted, found) in zip(("original", "composite"), outcomes, strict=True)
        },
    )
    return PairedAnswers(
        table=table,
        classes=classes,
        positive=asked.positive,
        scored=scored,
        probable=scored and all(_probable(found) for found in scores),
        unnamed=patients.count(""),
        notes=tuple(notes),
        inputs={file.part: file.digest for file in files},
    )


def _read(part: str, path: Path, asked: AnswerColumns) -> _File:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DataError(f"the {part} file can't be read: {error.strerror}") from None
    if len(data) > LARGEST_FILE:
        raise DataError(f"the {part} file is larger than {LARGEST_FILE // 2**20} MiB, expected a table of answers")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"the {part} file is not UTF-8 text; save it as CSV UTF-8") from None
    header, cells = _cells(part, text)
    roles = _roles(part, header, asked)
    rows: dict[str, Row] = {}
    repeated = 0
    for values in cells:
        row = dict(zip(header, values, strict=True))
        case = folded(row[roles["case"]])
        if not case:
            raise DataError(f"the {part} file has a row that names no case")
        repeated += case in rows
        rows[case] = row
    if repeated:
        raise DataError(f"{repeated} rows of the {part} file name a case again; expected one row a case")
    if not rows:
        raise DataError(f"the {part} file has no rows below its first line")
    return _File(part, rows, roles, _score_columns(header), hashlib.sha256(data).hexdigest())


def _cells(part: str, text: str) -> tuple[list[str], list[list[str]]]:
    try:
        header, found = delimited(text)
    except BrokenRowError as error:
        raise DataError(f"the {part} file is not readable as CSV near line {error.line}") from None
    rows = [cells for _, cells in found if any(cells)]
    odd = sum(len(cells) != len(header) for cells in rows)
    if odd:
        raise DataError(f"{odd} rows of the {part} file have not the {len(header)} fields that its first line has")
    if len(set(header)) != len(header):
        raise DataError(f"the {part} file names a column twice")
    return header, rows


def _plain(name: str) -> str:
    return folded(name).replace("_", "").replace("-", "")


def _roles(part: str, header: list[str], asked: AnswerColumns) -> dict[str, str]:
    """Role to column; the case is always there, and what a role may be is told by `COLUMNS` or stated.

    A stated column need not be in every file, but must be in one that could have it.
    """
    roles: dict[str, str] = {}
    for role, names in COLUMNS.items():
        stated = asked.named.get(role)
        fitting = [c for c in header if (c == stated if stated is not None else _plain(c) in names)]
        if len(fitting) > 1:
            raise DataError(
                f"{len(fitting)} columns of the {part} file could each be the {role}; name one: --column {role}=NAME"
            )
        if fitting:
            roles[role] = fitting[0]
    if "case" not in roles:
        raise DataError(
            f"the {part} file has no column that names the case, such as {', '.join(COLUMNS['case'][:4])}; state it: "
            "--column case=NAME"
        )
    if part != "truth" and not {"answer", "score"} & set(roles) and not _score_columns(header):
        raise DataError(
            f"the {part} file has no answers: expected a column answer, score (of --positive), or score:CLASS of each "
            "class; state it: --column answer=NAME"
        )
    return roles


def _score_columns(header: list[str]) -> dict[str, str]:
    """Class to the column of its score: `score:CLASS` or `probability:CLASS`."""
    found: dict[str, str] = {}
    for column in header:
        head, mark, name = column.partition(":")
        if mark and _plain(head) in COLUMNS["score"] and name.strip():
            found[name.strip()] = column
    return found


def _same_cases(files: list[_File]) -> list[str]:
    first = files[0]
    for other in files[1:]:
        lacking, more = len(first.rows.keys() - other.rows.keys()), len(other.rows.keys() - first.rows.keys())
        if lacking or (more and other.part != "truth"):
            raise DataError(
                f"the files are not of the same cases: {lacking} of {len(first.rows)} of the {first.part} file are not "
                f"in the {other.part} file, and {more} of {len(other.rows)} the other way round; a comparison in pairs "
                "needs each case in both, with a blank answer where there is none"
            )
    return list(first.rows)


def _agreed(files: list[_File], role: str, cases: list[str], form: Callable[[str], str]) -> list[str] | None:
    """What the files say of each case in this role, in one form; null where none has the column."""
    holding = [file for file in files if role in file.roles]
    if not holding:
        return None
    said = [[form(file.cell(case, role)) for case in cases] for file in holding]
    for file, values in zip(holding[1:], said[1:], strict=True):
        differing = sum(a != b for a, b in zip(said[0], values, strict=True))
        if differing:
            raise DataError(
                f"{differing} cases have another {role} in the {file.part} than in the {holding[0].part} file"
            )
    return said[0]


def _classes(asked: AnswerColumns, labels: list[str], files: list[_File]) -> tuple[str, ...]:
    classes = asked.classes or _in_order({*labels, *(name for file in files for name in file.scores)})
    if not 2 <= len(classes) <= _MOST_CLASSES:
        raise DataError(
            f"the labels name {len(classes)} different classes; expected 2 to {_MOST_CLASSES}: is the right column "
            "taken? --column label=NAME"
        )
    outside = sum(label not in classes for label in labels)
    if outside:
        raise DataError(f"{outside} labels are none of --classes")
    if asked.positive is not None and (asked.positive not in classes or len(classes) != 2):
        raise DataError("--positive must be one of two classes; of more, each has its recall and its score:CLASS")
    return classes


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted; numbers by value, so that 10 follows 9."""
    found = sorted(names)
    return tuple(sorted(found, key=int)) if all(n.isascii() and n.isdecimal() for n in found) else tuple(found)


def _outcome(
    file: _File, cases: list[str], classes: tuple[str, ...], asked: AnswerColumns, notes: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
    """(N,) answered class, -1 for none, and (N, C) scores where every case has them."""
    scores = _scores(file, cases, classes, asked)
    if "answer" in file.roles:
        return _answers(file, cases, classes, notes), scores
    if scores is None:
        raise DataError(f"the {file.part} file has neither an answer nor a score for every case")
    if not file.scores:
        positive, threshold = classes.index(asked.positive or ""), _threshold(file, scores, asked)
        notes.append(f"{file.part}: {asked.positive} is answered from a score of {threshold:g}")
        return np.where(scores[:, positive] >= threshold, positive, 1 - positive).astype(np.int64), scores
    notes.append(f"{file.part}: the class with the largest score is the answer")
    return scores.argmax(axis=1).astype(np.int64), scores


def _threshold(file: _File, scores: npt.NDArray[np.float64], asked: AnswerColumns) -> float:
    if asked.threshold is not None:
        return asked.threshold
    if not _probable(scores):
        raise DataError(
            f"the {file.part} file has scores outside 0 to 1 and no answers; state from which score it is "
            f"answered {asked.positive} (--threshold), or give the answers in a column"
        )
    return 0.5


def _answers(file: _File, cases: list[str], classes: tuple[str, ...], notes: list[str]) -> npt.NDArray[np.int64]:
    index = {name: k for k, name in enumerate(classes)}
    given = [file.cell(case, "answer") for case in cases]
    strange = sum(bool(answer) and answer not in index for answer in given)
    if strange:
        raise DataError(
            f"{strange} answers of the {file.part} file name none of the classes {', '.join(classes)}; if a class "
            "occurs in no label, name all: --classes"
        )
    if blank := given.count(""):
        notes.append(f"{file.part}: {blank} of {len(cases)} cases are not answered, which counts as not right")
    return np.array([index.get(answer, -1) for answer in given], dtype=np.int64)


def _scores(
    file: _File, cases: list[str], classes: tuple[str, ...], asked: AnswerColumns
) -> npt.NDArray[np.float64] | None:
    if file.scores:
        absent = [name for name in classes if name not in file.scores]
        if absent:
            raise DataError(f"the {file.part} file has scores, but none of {', '.join(absent)}")
        columns = [[_number(file, file.rows[case][file.scores[name]]) for case in cases] for name in classes]
        scores = np.array(columns, dtype=np.float64).T
    elif "score" in file.roles:
        if asked.positive is None:
            raise DataError("a column of one score needs to know whose it is: --positive CLASS, one of two classes")
        one = np.array([_number(file, file.cell(case, "score")) for case in cases])
        positive = classes.index(asked.positive)
        scores = np.empty((len(cases), 2))
        scores[:, positive], scores[:, 1 - positive] = one, 1.0 - one
    else:
        return None
    return None if np.isnan(scores).any() else scores


def _number(file: _File, text: str) -> float:
    """A score; nan where the cell is blank."""
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise DataError(f"the {file.part} file has a score that is no number; expected digits with a decimal point")
    return value


def _probable(scores: npt.NDArray[np.float64]) -> bool:
    inside = scores.min() >= 0.0 and scores.max() <= 1.0
    return bool(inside and np.abs(scores.sum(axis=1) - 1.0).max() <= 1e-3)


def _subject(predicted: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> SubjectTable:
    nobody = np.zeros(len(predicted), dtype=np.bool_)
    return SubjectTable(predicted, scores, nobody, ("",) * len(predicted), nobody)
