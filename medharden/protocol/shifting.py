"""The part of the protocol's schema that says under which ordinary changes of image quality clean answers are held."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from medharden.protocol.base import OpenFraction, Strict
from medharden.protocol.deciding import LARGEST_BARE_MARGIN, Bound

__all__ = ["CORRUPTIONS", "Corruption", "Shift"]

Corruption = Literal[
    "blur",
    "noise",
    "brightness-up",
    "brightness-down",
    "contrast-up",
    "contrast-down",
    "gamma-up",
    "gamma-down",
    "jpeg",
    "resolution",
    "rotation",
]
CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)


class Shift(Strict):
    """Clean performance of the release against the original's under named corruptions that nobody made on purpose.

    Attributes:
        corruptions: each is applied to all test cases; none measures nothing, and the report says so.
        severities: of each, from 1 to 5 as MedMNIST-C (Di Salvo et al. 2024) has them; all count together.
        margin: non-inferiority margin of accuracy under each corruption, which must then be shown for all; null reports
            the change beside the clean margin and decides nothing.
        recall_margin: the same for the recall of each class, or finding.
        justification: why these margins, in clinical words.
    """

    corruptions: tuple[Corruption, ...] = ()
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    margin: OpenFraction | None = None
    recall_margin: OpenFraction | None = None
    justification: Annotated[str, Field(pattern=r"\S")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Shift:
        for name, held in (("corruptions", self.corruptions), ("severities", self.severities)):
            if len(set(held)) != len(held):
                raise ValueError(f"shift.{name} names one twice: {list(held)}")
        if self.bounds and not self.corruptions:
            raise ValueError("shift: a margin needs shift.corruptions: under which of them is it to hold?")
        for name, bound in self.bounds.items():
            if bound.margin > LARGEST_BARE_MARGIN and not bound.justification:
                raise ValueError(
                    f"shift: {name} has a margin of {bound.margin:g}; above {LARGEST_BARE_MARGIN:g} it needs "
                    "shift.justification: a loss just below it would pass"
                )
        return self

    @property
    def bounds(self) -> dict[str, Bound]:
        """The margins that decide, by metric."""
        stated = {"accuracy": self.margin, "recall": self.recall_margin}
        return {
            metric: Bound(margin=margin, justification=self.justification)
            for metric, margin in stated.items()
            if margin is not None
        }
