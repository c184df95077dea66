"""`hardened.json`: how to build a hardened model again and how it answers; read strictly, byte for byte."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import ModelError
from medharden.models.contract import Contract, contract_fields, read_contract
from medharden.models.hardened import HardenedClassifier
from medharden.record import FusionRecord, ModelRecord
from medharden.text import neutral

__all__ = ["Description", "describe_hardened", "read_description"]

T = TypeVar("T")

_FORMAT = "medharden/hardened/1"
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_FINDINGS = "multilabel"
_MODES = ("clean", "robust", "mixed", "guarded")
_MOST = 2**16


def describe_hardened(model: HardenedClassifier) -> dict[str, Any]:
    """What `hardened.json` holds beside the weights: how to build the module again, and its fusion."""
    described: dict[str, Any] = {
        "format": _FORMAT,
        "original": dataclasses.asdict(model.clean_path.record),
        "fusion": dataclasses.asdict(model.fusion),
    }
    if model.contract is not None:
        described["contract"] = contract_fields(model.contract)
    return described | ({"task": _FINDINGS} if model.multilabel else {})


@dataclass(frozen=True)
class Description:
    """What `hardened.json` tells.

    Attributes:
        original: how to build the network again.
        fusion: how the two paths answer.
        multilabel: whether each output is a finding.
        contract: what the model takes and answers; null where its maker didn't say.
    """

    original: ModelRecord
    fusion: FusionRecord
    multilabel: bool
    contract: Contract | None


def read_description(data: bytes) -> Description:
    """What is told of a hardened model.

    Args:
        data: the bytes of `hardened.json`: canonical JSON and one line's end, as it was written.

    Raises:
        ModelError: other bytes, unknown or missing keys, or values of a wrong type or out of range.
    """
    try:
        if data[-1:] != b"\n":
            raise ValueError("does not end with a line's end")
        description = parse_canonical(data[:-1])
    except ValueError as error:
        raise ModelError(f"hardened.json {error}; was it edited?") from None
    if not isinstance(description, dict):
        raise ModelError("hardened.json holds no description of a model")
    if description.get("format") != _FORMAT:
        raise ModelError(f"hardened.json has format {_shown(description.get('format'))}, expected {_FORMAT!r}")
    task = description.get("task", "multiclass")
    unknown = description.keys() - {"format", "original", "fusion", "task", "contract"}
    if unknown or (task != _FINDINGS and "task" in description):
        raise ModelError(f"hardened.json has a key that it can't have: {_shown(min(unknown, default='task'))}")
    record = _read(ModelRecord, description, "original")
    fusion = _read(FusionRecord, description, "fusion")
    _require_ranges(record, fusion)
    contract = None
    if "contract" in description:
        contract = read_contract(
            description["contract"], classes=record.classes, channels=record.channels, dims=record.dims
        )
    return Description(record, fusion, task == _FINDINGS, contract)


def _read(kind: type[T], description: dict[str, Any], part: str) -> T:
    given = description.get(part)
    try:
        record = TypeAdapter(kind).validate_json(canonical_json(given), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] in _UNKNOWN_KEY:  # where the record was read strictly before, pydantic finds it by itself
            raise _unknown_key(part, str(first["loc"][-1])) from None
        where = ".".join([part, *map(str, first["loc"])])
        raise ModelError(f"hardened.json: {neutral(where)[:200]}: {neutral(first['msg'])[:200]}") from None
    unknown = _unknown(given, dataclasses.asdict(record))  # type: ignore[call-overload]
    if unknown:
        raise _unknown_key(part, unknown)
    return record


def _unknown_key(part: str, key: str) -> ModelError:
    return ModelError(f"hardened.json: {part} has a key that it can't have: {_shown(key)}")


def _unknown(given: Any, known: Any) -> str:
    """The first key of plain data that what was read of it lacks, or nothing."""
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in known:
                return str(key)
            if inner := _unknown(value, known[key]):
                return inner
    elif isinstance(given, list):
        return next((inner for value, of in zip(given, known, strict=True) if (inner := _unknown(value, of))), "")
    return ""


def _require_ranges(record: ModelRecord, fusion: FusionRecord) -> None:
    faults = {
        "original.dims": record.dims in (2, 3),
        "original.classes": 1 <= record.classes <= _MOST and (record.classes == 2 or not record.one_logit),
        "original.channels": 1 <= record.channels <= _MOST,
        "original.mean": len(record.mean) in (1, record.channels),
        "original.std": len(record.std) in (1, record.channels) and all(value > 0 for value in record.std),
        "original.zscore": record.zscore in (None, "case", "channel") and (record.zscore or not record.zscore_nonzero),
        "fusion.mode": fusion.mode in _MODES,
        "fusion.weight": 0 <= fusion.weight <= 1,
        "fusion.clean_temperature": 0 < fusion.clean_temperature < math.inf,
        "fusion.robust_temperature": 0 < fusion.robust_temperature < math.inf,
        "fusion.referral_threshold": 0 <= fusion.referral_threshold <= 1,
        "fusion.referral_rate": 0 <= fusion.referral_rate <= 1,
    }
    wrong = [where for where, right in faults.items() if not right]
    if wrong:
        raise ModelError(f"hardened.json: {wrong[0]} is out of range; was it edited?")


def _shown(value: Any) -> str:
    return repr(neutral(str(value))[:80])
