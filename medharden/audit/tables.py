"""Per-case outcomes to Parquet and back: in memory that the file's own size bounds, whatever it claims to hold."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medharden.audit.files import write_atomic
from medharden.audit.screening import screen_words
from medharden.errors import RunError
from medharden.files import read_plain
from medharden.record import CaseTable, FindingTable, ShiftedAnswers, SubjectTable

__all__ = ["parse_cases", "read_cases", "write_cases"]

Texts = tuple[str, ...]

_GROUP, _SHIFT = "group.", "shift."
_ANSWERS = ("original", "composite")
_NUMBERS = {pa.int64(): np.int64, pa.float64(): np.float64, pa.bool_(): np.bool_}
_LONGEST = 1024
_FEWEST_CELLS, _CELLS_A_BYTE = 10**7, 4


def write_cases(path: Path, table: CaseTable) -> str:
    """Writes per-case outcomes as Parquet; returns the file's SHA-256.

    Raises:
        OutputError: the file can't be written.
        PrivacyError: a text in it would be patient data.
    """
    columns: dict[str, Any] = {
        "case": list(table.case),
        "patient": list(table.patient),
        **_spread("label", table.label),
        "attacked": table.attacked,
    }
    columns |= {f"{_GROUP}{name}": list(values) for name, values in table.groups.items()}
    for name, subject in table.subjects.items():
        columns |= _spread(f"{name}.predicted", subject.predicted)
        columns |= _spread(f"{name}.probability", subject.probabilities)
        columns[f"{name}.robust"] = subject.robust
        columns[f"{name}.won_by"] = list(subject.won_by)
        columns[f"{name}.referred"] = subject.referred
        if subject.referred_attacked is not None:
            columns[f"{name}.referred_attacked"] = subject.referred_attacked
        if subject.withstands is not None:
            columns[f"{name}.withstands"] = subject.withstands
        if subject.findings is not None:
            columns |= _spread(f"{name}.finding_robust", subject.findings.robust)
            columns |= _spread(f"{name}.attacked_probability", subject.findings.attacked_probabilities)
    for under in table.shift:
        head = f"{_SHIFT}{under.corruption}.{under.severity}"
        columns |= _spread(f"{head}.original", under.original) | _spread(f"{head}.composite", under.composite)
        columns[f"{head}.referred"] = under.referred
    words = {w for values in columns.values() if isinstance(values, list) for w in values}
    screen_words(path.name, sorted({*words, *columns}))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="none")  # what could inflate is not read
    return write_atomic(path, buffer.getvalue())


def read_cases(path: Path) -> CaseTable:
    """Reads per-case outcomes back.

    Raises:
        RunError: the file is missing, no plain file, or no such table.
    """
    try:
        data = read_plain(path.parent, path.name)
    except OSError as error:
        raise RunError(f"{path.name} can't be read: {error.strerror}") from error
    return parse_cases(path.name, data)


def parse_cases(name: str, data: bytes) -> CaseTable:
    """Per-case outcomes from a file's bytes; as `read_cases`."""
    try:
        return _table(_columns(data))
    except (OSError, KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise RunError(f"{name} is not a table of per-case outcomes: {type(error).__name__}") from error


def _columns(data: bytes) -> dict[str, Texts | npt.NDArray[Any]]:
    """Columns of text, whole numbers, numbers or flags, in memory that the file's own size bounds.

    Text is read as a dictionary, as which one long text in many rows takes no more than it does in the file.
    """
    # neither `read_table` nor `to_numpy`: they bring in pandas, which takes longer than the rest of the gate
    schema = pq.read_schema(pa.BufferReader(data))
    text = [field.name for field in schema if field.type == pa.string()]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=text)
    found = file.metadata
    chunks = [found.row_group(g).column(c) for g in range(found.num_row_groups) for c in range(found.num_columns)]
    if any(chunk.compression != "UNCOMPRESSED" for chunk in chunks):
        raise ValueError("compressed")
    if found.num_rows * found.num_columns > max(_FEWEST_CELLS, _CELLS_A_BYTE * len(data)):
        raise ValueError("more cells than its bytes can hold")
    if len(set(schema.names)) != len(schema.names) or not {field.type for field in schema} <= {pa.string(), *_NUMBERS}:
        raise TypeError("columns")
    table = file.read()
    return {name: _column(table.column(name)) for name in table.column_names}


def _column(column: Any) -> Texts | npt.NDArray[Any]:
    if column.null_count:
        raise ValueError("missing values")
    if not pa.types.is_dictionary(column.type):
        return np.array(column.to_pylist(), dtype=_NUMBERS[column.type])
    words = [chunk.dictionary for chunk in column.chunks]
    if any(pc.max(pc.binary_length(held)).as_py() > _LONGEST for held in words if len(held)):
        raise ValueError("a text too long for a pseudonym or a name")
    return tuple(column.to_pylist())


def _table(columns: dict[str, Any]) -> CaseTable:
    ends = (".predicted", ".predicted.0")
    heads = [c.removesuffix(".0") for c in columns if c.endswith(ends) and not c.startswith(_GROUP)]
    names = [c.removesuffix(".predicted") for c in heads]
    return CaseTable(
        case=_texts("case", columns),
        patient=_texts("patient", columns),
        label=_gathered("label", columns, np.int64),
        attacked=_gathered("attacked", columns, np.bool_),
        subjects={name: _subject(name, columns) for name in names},
        groups={c.removeprefix(_GROUP): _texts(c, columns) for c in columns if c.startswith(_GROUP)},
        shift=tuple(_shifted(c.removesuffix(".referred"), columns) for c in columns if _of_shift(c)),
    )


def _of_shift(column: str) -> bool:
    """Whether it is the one column that each corruption has at each severity, whatever the task."""
    return column.startswith(_SHIFT) and column.endswith(".referred") and column.count(".") == 3


def _shifted(head: str, columns: dict[str, Any]) -> ShiftedAnswers:
    _, corruption, severity = head.split(".")
    original, composite = (_gathered(f"{head}.{name}", columns, np.int64) for name in _ANSWERS)
    referred = _gathered(f"{head}.referred", columns, np.bool_)
    return ShiftedAnswers(corruption, int(severity), original, composite, referred)


def _subject(name: str, columns: dict[str, Any]) -> SubjectTable:
    findings = None
    if f"{name}.finding_robust.0" in columns:
        findings = FindingTable(
            robust=_gathered(f"{name}.finding_robust", columns, np.bool_),
            attacked_probabilities=_gathered(f"{name}.attacked_probability", columns, np.float64),
        )
    under_attack, curve = f"{name}.referred_attacked", f"{name}.withstands"
    return SubjectTable(
        predicted=_gathered(f"{name}.predicted", columns, np.int64),
        probabilities=_gathered(f"{name}.probability", columns, np.float64),
        robust=_gathered(f"{name}.robust", columns, np.bool_),
        won_by=_texts(f"{name}.won_by", columns),
        referred=_gathered(f"{name}.referred", columns, np.bool_),
        findings=findings,
        referred_attacked=_gathered(under_attack, columns, np.bool_) if under_attack in columns else None,
        withstands=_gathered(curve, columns, np.float64) if curve in columns else None,
    )


def _texts(name: str, columns: dict[str, Any]) -> Texts:
    if not isinstance(columns[name], tuple):
        raise TypeError(name)
    texts: Texts = columns[name]
    return texts


def _spread(name: str, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """One column of this name, or of a table one column for each of its own: `name.0`, `name.1`, ..."""
    if values.ndim == 1:
        return {name: values}
    return {f"{name}.{k}": values[:, k] for k in range(values.shape[1])}


def _gathered(name: str, columns: dict[str, Any], kind: type[Any]) -> npt.NDArray[Any]:
    """What `_spread` spread, where it is of the kind that was written."""
    parts = [columns[name]] if name in columns else []
    if not parts:
        parts = [columns[f"{name}.{k}"] for k in range(sum(c.startswith(f"{name}.") for c in columns))]
    if any(not isinstance(part, np.ndarray) or part.dtype != kind for part in parts):
        raise TypeError(name)
    found: npt.NDArray[Any] = parts[0] if name in columns else np.stack(parts, axis=1)
    return found
