"""What the attacker may do, and the attacks of the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Strict
from medharden.protocol.imaging import Intensity

__all__ = ["Attack", "Suite", "ThreatModel"]


class ThreatModel(Strict):
    """What the attacker may do to an input.

    Attributes:
        space: what the attacker changes: `input`, what the model is fed after preprocessing, or `stored`, the whole
            numbers in the image's file before it.
        norm: `linf` (each value moves by at most eps) or `l2` (the whole perturbation's length is at most eps; not for
            `stored`).
        eps: the budget, in `unit`.
        unit: `input` (the model's [0, 1] range), `1/255` (grey levels of an 8-bit image), `HU` (in the space `input`
            it needs the `window` intensity mode, whose width translates it), or `counts` (steps of the stored values;
            for `stored` alone).
        bounds: valid range of the model's input.
    """

    space: Literal["input", "stored"] = "input"
    norm: Literal["linf", "l2"] = "linf"
    eps: Annotated[float, Field(gt=0)]
    unit: Literal["input", "1/255", "HU", "counts"] = "input"
    bounds: tuple[float, float] = (0.0, 1.0)

    @model_validator(mode="after")
    def _consistent(self) -> ThreatModel:
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError("threat.bounds must rise")
        if self.space == "stored" and self.norm != "linf":
            raise ValueError("threat.norm must be linf where threat.space is stored")
        if self.unit == "counts" and self.space != "stored":
            raise ValueError("threat.unit counts needs threat.space stored")
        return self

    def in_input_units(self, intensity: Intensity) -> ThreatModel:
        """The same threat with eps as a fraction of the model's [0, 1] input range.

        Raises:
            ValueError: it acts on stored values, or is in HU and the intensity is not a window of the protocol's.
        """
        if self.space == "stored":
            raise ValueError(
                "threat.space is stored: hardening and evaluation act on the model's input, so set it to input for "
                "them; `medharden attack` changes stored values"
            )
        if self.unit == "input":
            return self
        if self.unit == "1/255":
            return self.model_copy(update={"eps": self.eps / 255, "unit": "input"})
        if intensity.mode != "window" or intensity.low is None or intensity.high is None:
            raise ValueError("threat.unit HU needs input.intensity mode 'window'")
        return self.model_copy(update={"eps": self.eps / (intensity.high - intensity.low), "unit": "input"})


class Attack(Strict):
    """One attack of the suite.

    Attributes:
        attack: `pgd` (Madry et al. 2018) or `apgd` (Croce & Hein 2020).
        loss: `ce` (cross-entropy) or `margin` (difference of logits).
        steps: gradient steps a restart.
        restarts: independent starts; the first of `pgd` is random too.
    """

    attack: Literal["pgd", "apgd"]
    loss: Literal["ce", "margin"]
    steps: Annotated[int, Field(ge=1)]
    restarts: Annotated[int, Field(ge=1)] = 1

    @property
    def name(self) -> str:
        """Such as `apgd-ce-50`, with `x3` for three restarts."""
        return f"{self.attack}-{self.loss}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")


_STANDARD = (
    Attack(attack="apgd", loss="ce", steps=50),
    Attack(attack="apgd", loss="margin", steps=50),
    Attack(attack="pgd", loss="ce", steps=20),
)


class Suite(Strict):
    """The attacks of the evaluation: a case is robust only if none of them wins on it.

    Attributes:
        attacks: run in this order; a case that has fallen is not attacked again.
        cases: attack at most this many test cases, drawn by class from the seed; null attacks all.
        sanity_cases: how many of them the curves against budget and steps are measured on; 0 measures none.
    """

    attacks: tuple[Attack, ...] = Field(default=_STANDARD, min_length=1)
    cases: Annotated[int, Field(ge=1)] | None = None
    sanity_cases: Annotated[int, Field(ge=0)] = 32
