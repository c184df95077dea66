"""What a released model takes and answers, kept with its weights: the view, the classes, the decision rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medharden.canonical import canonical_json
from medharden.errors import ModelError
from medharden.protocol import Input
from medharden.text import neutral

__all__ = ["Contract", "contract_fields", "read_contract"]

_MOST_AXES = 4


@dataclass(frozen=True)
class Contract:
    """How a file becomes the input that was gated on, and what the outputs stand for.

    Attributes:
        classes: of the outputs, in their order; of a multi-label task the findings.
        input: the view: how stored values become input in [0, 1].
        shape: (C, *spatial) of one case's input, as the cohort's cases had it.
        decision: the decision rule in words: `argmax`, or the probability from which a class or finding is answered.
        protocol: digest of the protocol that it is from.
    """

    classes: tuple[str, ...]
    input: Input
    shape: tuple[int, ...]
    decision: str
    protocol: str


def contract_fields(contract: Contract) -> dict[str, Any]:
    """The contract as plain JSON values."""
    return {
        "classes": list(contract.classes),
        "input": contract.input.model_dump(mode="json"),
        "shape": list(contract.shape),
        "decision": contract.decision,
        "protocol": contract.protocol,
    }


def read_contract(given: Any, *, classes: int, channels: int, dims: int) -> Contract:
    """A contract from plain JSON values, held against the model that it is of.

    Args:
        given: as `contract_fields` gives it.
        classes: outputs of the model.
        channels: of the network's input.
        dims: spatial dimensions.

    Raises:
        ModelError: unknown or missing keys, values of a wrong type, or those of another model.
    """
    known = {"classes", "input", "shape", "decision", "protocol"}
    if not isinstance(given, dict) or set(given) != known:
        raise ModelError(f"hardened.json: contract has other keys than {', '.join(sorted(known))}")
    if not isinstance(given["classes"], list) or not isinstance(given["shape"], list):
        raise ModelError("hardened.json: contract: classes and shape are lists")
    try:
        view = Input.model_validate_json(canonical_json(given["input"]))
        names = TypeAdapter(tuple[str, ...]).validate_python(tuple(given["classes"]), strict=True)
        shape = TypeAdapter(tuple[int, ...]).validate_python(tuple(given["shape"]), strict=True)
        words = TypeAdapter(tuple[str, str]).validate_python((given["decision"], given["protocol"]), strict=True)
    except (ValidationError, TypeError) as error:
        said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else "of a wrong type"
        raise ModelError(f"hardened.json: contract: {neutral(str(said))[:200]}") from None
    fits = len(shape) == dims + 1 <= _MOST_AXES and min(shape) > 0 and shape[0] in (1, channels) and view.dims == dims
    if not fits or len(names) != classes or (view.size is not None and view.size != shape[1:]):
        raise ModelError("hardened.json: contract is of another model than the one described beside it")
    return Contract(names, view, shape, *words)
