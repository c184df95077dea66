"""What the attacker may do, and the attacks of the evaluation."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Strict
from medharden.protocol.imaging import Intensity

__all__ = ["Attack", "Precision", "Suite", "ThreatModel"]

Precision = Literal["float32", "bfloat16"]


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
                "them (a budget in HU has the same size in both); `medharden attack` changes stored values, of a "
                "hardened run too"
            )
        if self.unit == "input":
            return self
        if self.unit == "1/255":
            return self.model_copy(update={"eps": self.eps / 255, "unit": "input"})
        if intensity.mode != "window" or intensity.low is None or intensity.high is None:
            raise ValueError("threat.unit HU needs input.intensity mode 'window'")
        eps = self.eps / (intensity.high - intensity.low)
        if not 0 < eps < math.inf:
            raise ValueError("threat.eps is no finite share above 0 of the window of input.intensity")
        return self.model_copy(update={"eps": eps, "unit": "input"})


class Attack(Strict):
    """One attack of the suite.

    Attributes:
        attack: `pgd` (Madry et al. 2018), `apgd` and `apgd-t` (Croce & Hein 2020; the latter towards each of the other
            classes, or findings, in turn), `fab` (minimum norm; Croce & Hein 2020) or `square` (black box;
            Andriushchenko et al. 2020).
        loss: `ce` (cross-entropy), `margin` (difference of logits) or `dlr` (their ratio to the spread of logits; the
            margin where there are too few classes for it). `fab` and `square` know the margin alone.
        steps: gradient steps a restart, a target; queries of `square`.
        restarts: independent starts; the first of `fab` is the input, all others are random.
        targets: the most targets of `apgd-t` and `fab`, nearest first.
    """

    attack: Literal["pgd", "apgd", "apgd-t", "fab", "square"]
    loss: Literal["ce", "margin", "dlr"] = "margin"
    steps: Annotated[int, Field(ge=1)]
    restarts: Annotated[int, Field(ge=1)] = 1
    targets: Annotated[int, Field(ge=1)] = 9

    @model_validator(mode="after")
    def _consistent(self) -> Attack:
        if self.attack in ("fab", "square") and self.loss != "margin":
            raise ValueError(f"suite.attacks: {self.attack} has no loss but the margin, got {self.loss!r}")
        return self

    @property
    def name(self) -> str:
        """Such as `apgd-ce-50`, with `x3` for three restarts; `fab-40`; `apgd-t-dlr-20to4` for four targets."""
        loss = "" if self.attack in ("fab", "square") else f"-{self.loss}"
        targets = f"to{self.targets}" if self.attack in ("apgd-t", "fab") and self.targets != 9 else ""
        restarts = f"x{self.restarts}" if self.restarts > 1 else ""
        return f"{self.attack}{loss}-{self.steps}{targets}{restarts}"


_STANDARD = (
    Attack(attack="apgd", loss="ce", steps=50),
    Attack(attack="apgd", loss="dlr", steps=50),
    Attack(attack="apgd-t", loss="dlr", steps=20),
    Attack(attack="fab", steps=40, targets=3),
    Attack(attack="square", steps=500),
)
SUITES: dict[str, tuple[Attack, ...]] = {
    "fast": (Attack(attack="apgd", loss="ce", steps=20), Attack(attack="apgd", loss="margin", steps=20)),
    "standard": _STANDARD,
    "thorough": (
        Attack(attack="apgd", loss="ce", steps=100, restarts=3),
        Attack(attack="apgd", loss="dlr", steps=100, restarts=3),
        Attack(attack="apgd-t", loss="dlr", steps=100),
        Attack(attack="fab", steps=100, restarts=3),
        Attack(attack="square", steps=5000),
    ),
}


FEWEST_ATTACKED = 100
"""With fewer, exact limits of robust accuracy reach more than ten points to either side."""

_BY_GRADIENT = ("pgd", "apgd")


class Suite(Strict):
    """The attacks of the evaluation: a case is robust only if none of them wins on it.

    Attributes:
        name: `fast`, `standard` or `thorough`, which name the attacks; `custom` where they are listed.
        attacks: run in this order; a case that has fallen is not attacked again.
        cases: attack at most this many test cases, drawn by class from the seed; null attacks all.
        sanity_cases: how many of them the curves against budget and steps are measured on; 0 measures none.
        curve_steps: of the search at budgets below and above the protocol's, which begins where the suite ended; 0
            measures no curve of accuracy over budgets.
        reason: why a suite is enough that is weaker than `fast`, or attacks fewer than 100 cases; such a suite needs
            it, and every verdict under it says so.
        precision: what attacks search in; `bfloat16` is faster on some devices and may find less. Every success is
            confirmed in float32 either way.
        moved_grades: of an ordinal task, how many grades from the true one an attack must bring the answer to win: 1,
            any wrong answer, or 2, a distant one. A case whose clean answer is wrong stands under neither.
    """

    name: Literal["fast", "standard", "thorough", "custom"] = "standard"
    attacks: tuple[Attack, ...] = Field(default=_STANDARD, min_length=1)
    cases: Annotated[int, Field(ge=1)] | None = None
    sanity_cases: Annotated[int, Field(ge=0)] = 32
    curve_steps: Annotated[int, Field(ge=0)] = 10
    reason: Annotated[str, Field(min_length=1, pattern=r"\S")] | None = None
    precision: Precision = "float32"
    moved_grades: Literal[1, 2] = 1

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """A name alone brings its attacks, attacks alone are `custom`."""
        if not isinstance(given, dict):
            return given
        name = given.get("name")
        if isinstance(given.get("attacks"), list):
            # JSON has lists alone; behind a validator such as this one pydantic no longer takes them for tuples.
            given = {**given, "attacks": tuple(given["attacks"])}
        if "attacks" not in given and isinstance(name, str) and name in SUITES:
            return {**given, "attacks": SUITES[name]}
        return {"name": "custom", **given} if "attacks" in given else given

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        if self.name != "custom" and self.attacks != SUITES[self.name]:
            raise ValueError(f"suite.name {self.name!r} names other attacks than suite.attacks; leave out one of them")
        if self.name == "custom" and "attacks" not in self.model_fields_set:
            raise ValueError("suite.name custom needs suite.attacks")
        if self.weakness and self.reason is None:
            raise ValueError(
                f"suite: {self.weakness}, so robustness would mean little; strengthen it, or state as suite.reason why "
                "it is enough, and every verdict will say so"
            )
        return self

    @property
    def weakness(self) -> str:
        """In what the suite is weaker than `fast` on enough cases, in words; or nothing."""
        least = max(attack.steps for attack in SUITES["fast"])
        said = []
        if not any(attack.attack in _BY_GRADIENT and attack.steps >= least for attack in self.attacks):
            said.append(f"none of its attacks is pgd or apgd with {least} steps or more, as those of fast")
        if self.cases is not None and self.cases < FEWEST_ATTACKED:
            said.append(f"it attacks {self.cases} cases at most, fewer than {FEWEST_ATTACKED}")
        return "; ".join(said)
