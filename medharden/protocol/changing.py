"""The part of the protocol's schema that foresees later changes: a predetermined change control plan."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import OpenFraction, Strict

__all__ = ["Change", "ChangeControl", "Modification"]

Change = Literal[
    "data",
    "original",
    "seed",
    "hardening",
    "fusion",
    "threat",
    "suite",
    "endpoints",
    "input",
    "model",
    "splits",
    "tool",
    "export",
    "quantisation",
]
"""What can be told from records to differ between a release and its predecessor, and may be foreseen."""

_Text = Annotated[str, Field(pattern=r"\S")]


class Modification(Strict):
    """One foreseen modification, with what it must show.

    Attributes:
        change: what differs: training or validation `data`; the `original` model; the `seed`; a section of the protocol
            (`hardening`, `fusion`, `threat`, `suite`, `endpoints`, `input`, `model`, `splits`); the `tool`, which is
            medharden, its libraries or Python; the released model in another form (`export`) or precision
            (`quantisation`).
        description: what may be done, and why.
        bars: by `accuracy` or `recall` the largest loss against the predecessor, in the place of the endpoint's margin;
            of `export` and `quantisation` against the composite, and by `agreement` the largest share of cases
            answered or referred otherwise.
    """

    change: Change
    description: _Text
    bars: dict[Literal["accuracy", "recall", "agreement"], OpenFraction] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Modification:
        if "agreement" in self.bars and self.change not in ("export", "quantisation"):
            raise ValueError(f"change_control: {self.change}: a bar of agreement is for export and quantisation")
        return self


class ChangeControl(Strict):
    """Which modifications of an authorised release are foreseen, as FDA's predetermined change control plan has them.

    A release is held against the plan of its predecessor, never against its own.

    Attributes:
        modifications: those that are foreseen; empty is no plan.
        unforeseen: what any other change comes to: `hold`, a verdict is INCONCLUSIVE at best; `say`, the verdict tells
            it.
    """

    modifications: tuple[Modification, ...] = ()
    unforeseen: Literal["hold", "say"] = "hold"

    @model_validator(mode="after")
    def _once(self) -> ChangeControl:
        named = [m.change for m in self.modifications]
        if len(set(named)) != len(named):
            raise ValueError(f"change_control.modifications foresees a change twice; got {named}")
        return self
