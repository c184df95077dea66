"""The part of the protocol's schema that asks for more than the common endpoints: operating points, worst groups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Fraction, OpenFraction, Strict

__all__ = ["OperatingPoint", "WorstGroup"]

_Reason = Annotated[str, Field(pattern=r"\S")]


class OperatingPoint(Strict):
    """One side of two classes compared where the other is fixed: each model at a threshold of its own, from validation.

    Attributes:
        fixed: which side each model is brought to on validation: `specificity` compares sensitivity, and the reverse.
        at: what it is brought to, at least, in (0, 1).
        margin: the largest acceptable loss of the other side on the test split.
        held_margin: likewise of the fixed side, which on the test split is what it comes to; null takes `margin`.
        role: `co-primary`, both sides must pass; `reported`, which decides nothing.
        justification: why, in clinical words.
    """

    fixed: Literal["specificity", "sensitivity"]
    at: OpenFraction
    margin: OpenFraction
    held_margin: OpenFraction | None = None
    role: Literal["co-primary", "reported"] = "co-primary"
    justification: _Reason | None = None

    @property
    def key(self) -> str:
        """Such as `specificity_0.9`."""
        return f"{self.fixed}_{self.at:g}"


class WorstGroup(Strict):
    """The group in which the release fares worst, held against a limit that every group must reach.

    Attributes:
        metric: `accuracy`; `recall`, of each class by itself; or `robust`, the share that stands under attack.
        margin: the largest loss against the original that is acceptable in any group; null asks for none.
        floor: the least value itself in any group; null asks for none.
        columns: of `subgroups.columns`; null takes all.
        least_cases: groups with fewer cases that count are named and left out, which needs its justification.
        justification: why, in clinical words.
    """

    metric: Literal["accuracy", "recall", "robust"]
    margin: OpenFraction | None = None
    floor: Fraction | None = None
    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    least_cases: Annotated[int, Field(ge=1)] = 1
    justification: _Reason | None = None

    @model_validator(mode="after")
    def _consistent(self) -> WorstGroup:
        where = f"endpoints.worst_group: {self.metric}"
        if self.margin is None and self.floor is None:
            raise ValueError(f"{where} needs a margin, a floor or both")
        if self.least_cases > 1 and self.justification is None:
            raise ValueError(f"{where} leaves groups of fewer than {self.least_cases} cases out; say why")
        return self
