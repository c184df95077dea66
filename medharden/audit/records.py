"""Records to canonical JSON (RFC 8785) and back, strictly; per-case tables to Parquet and back."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, TypeAdapter, ValidationError

from medharden.audit.files import write_atomic
from medharden.audit.screening import screen_words
from medharden.canonical import canonical_json
from medharden.errors import RunError
from medharden.record import CaseTable, FindingTable, SubjectTable

__all__ = ["read_cases", "read_record", "write_cases", "write_record"]

T = TypeVar("T")

_GROUP = "group."


def write_record(path: Path, record: Any) -> str:
    """Writes a record as canonical JSON; returns the file's SHA-256.

    Raises:
        OutputError: the file can't be written.
    """
    return write_atomic(path, canonical_json(record) + b"\n")


def read_record(path: Path, kind: type[T]) -> T:
    """Reads a record back, refusing unknown keys and wrong types.

    Raises:
        RunError: the file is missing, no JSON, or no such record.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path.name} is missing from the run directory or can't be read ({error.strerror}); "
            "run the stage that writes it first"
        ) from error
    try:
        return _adapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{path.name} is not a {kind.__name__} record: {where}: {first['msg']}") from error


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(_strict(kind))


def _strict(kind: type[T]) -> type[T]:
    """Pydantic reads standard dataclasses; this attribute makes it refuse unknown keys."""
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "__pydantic_config__"):
        kind.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return kind


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
        if subject.findings is not None:
            columns |= _spread(f"{name}.finding_robust", subject.findings.robust)
            columns |= _spread(f"{name}.attacked_probability", subject.findings.attacked_probabilities)
    words = {w for values in columns.values() if isinstance(values, list) for w in values}
    screen_words(path.name, sorted({*words, *columns}))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return write_atomic(path, buffer.getvalue())


def read_cases(path: Path) -> CaseTable:
    """Reads per-case outcomes back.

    Raises:
        RunError: the file is missing or no such table.
    """
    try:
        # neither `read_table` nor `to_numpy`: they bring in pandas, which takes longer than the rest of the gate
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read()
        columns = {name: np.array(table.column(name).to_pylist()) for name in table.column_names}
        ends = (".predicted", ".predicted.0")
        heads = [c.removesuffix(".0") for c in columns if c.endswith(ends) and not c.startswith(_GROUP)]
        names = [c.removesuffix(".predicted") for c in heads]
        return CaseTable(
            case=tuple(columns["case"].tolist()),
            patient=tuple(columns["patient"].tolist()),
            label=_gathered("label", columns).astype(np.int64),
            attacked=columns["attacked"].astype(np.bool_),
            subjects={name: _subject(name, columns) for name in names},
            groups={c.removeprefix(_GROUP): tuple(columns[c].tolist()) for c in columns if c.startswith(_GROUP)},
        )
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise RunError(f"{path.name} is not a table of per-case outcomes: {type(error).__name__}") from error


def _subject(name: str, columns: dict[str, Any]) -> SubjectTable:
    findings = None
    if f"{name}.finding_robust.0" in columns:
        findings = FindingTable(
            robust=_gathered(f"{name}.finding_robust", columns).astype(np.bool_),
            attacked_probabilities=_gathered(f"{name}.attacked_probability", columns).astype(np.float64),
        )
    return SubjectTable(
        predicted=_gathered(f"{name}.predicted", columns).astype(np.int64),
        probabilities=_gathered(f"{name}.probability", columns),
        robust=columns[f"{name}.robust"].astype(np.bool_),
        won_by=tuple(columns[f"{name}.won_by"].tolist()),
        referred=columns[f"{name}.referred"].astype(np.bool_),
        findings=findings,
    )


def _spread(name: str, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """One column of this name, or of a table one column for each of its own: `name.0`, `name.1`, ..."""
    if values.ndim == 1:
        return {name: values}
    return {f"{name}.{k}": values[:, k] for k in range(values.shape[1])}


def _gathered(name: str, columns: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """What `_spread` spread."""
    if name in columns:
        return columns[name]
    return np.stack([columns[f"{name}.{k}"] for k in range(sum(c.startswith(f"{name}.") for c in columns))], axis=1)
