"""The part of the protocol's schema that says what is answered: classes or findings, and from which probability."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from medharden.protocol.base import OpenFraction, Strict

__all__ = ["Task"]

_SEPARATOR = "|"

Unclear = Literal["refuse", "exclude", "absent", "present", "mask"]


class Task(Strict):
    """What is classified.

    Attributes:
        kind: `multiclass` gives each case one of the classes; `multilabel` any number of findings, none included;
            `ordinal` one of grades that rise in the order in which `classes` names them.
        classes: names in the order of the model's outputs; null takes the data's names, sorted. The findings of
            `multilabel` and the grades of `ordinal` must be named.
        positive: for two classes, the finding; its recall is sensitivity, the other's is specificity.
        uncertain, missing: of `multilabel`, what a finding's label is taken for that is -1, or blank: `absent`,
            `present`; `mask` leaves that finding of that case out of training, calibration, attack and statistics;
            `exclude` leaves the case out on record, `refuse` counts it among the cases that can't be used.
        threshold: for two classes, the probability of `positive` from which it is answered; of `multilabel`, the
            probability from which a finding is called present, one for all or one for each by name. The same for
            the original and the hardened model. 0.5 is the larger logit, or a logit above 0.
    """

    kind: Literal["multiclass", "multilabel", "ordinal"] = "multiclass"
    classes: tuple[str, ...] | None = None
    positive: str | None = None
    uncertain: Unclear = "refuse"
    missing: Unclear = "refuse"
    threshold: OpenFraction | dict[str, OpenFraction] = 0.5

    @property
    def multilabel(self) -> bool:
        """Whether a case may have several findings, or none."""
        return self.kind == "multilabel"

    @property
    def ordinal(self) -> bool:
        """Whether the classes are grades in their order."""
        return self.kind == "ordinal"

    def threshold_of(self, name: str) -> float:
        """The probability from which a class or finding is answered."""
        return self.threshold[name] if isinstance(self.threshold, dict) else self.threshold

    def recall_name(self, classes: tuple[str, ...], label: int) -> str:
        """What one class's recall is called: `sensitivity` or `specificity` of two classes, else `recall:CLASS`."""
        if self.positive is None or len(classes) != 2:
            return f"recall:{classes[label]}"
        return "sensitivity" if classes[label] == self.positive else "specificity"

    @property
    def rule_of_findings(self) -> str:
        """The thresholds in words, such as `0.5 for each finding` or `Effusion 0.3, Mass 0.5`."""
        if isinstance(self.threshold, dict):
            return ", ".join(f"{name} {self.threshold_of(name):g}" for name in self.classes or ())
        return f"{self.threshold:g} for each finding"

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("task.classes names a class twice")
        if self.multilabel:
            self._check_findings()
        else:
            self._check_classes()
        return self

    def _check_classes(self) -> None:
        if (self.uncertain, self.missing) != ("refuse", "refuse"):
            raise ValueError("task.uncertain and task.missing are for task.kind multilabel: leave them out")
        if self.ordinal and (self.classes is None or len(self.classes) < 3):
            raise ValueError("task.kind ordinal needs task.classes: three grades or more, in their order")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError(f"task.classes needs two classes or more, got {list(self.classes)}")
        if isinstance(self.threshold, dict):
            raise ValueError("task.threshold: one for each finding is for task.kind multilabel; give one number")
        if self.positive is not None and self.classes is not None and self.positive not in self.classes:
            raise ValueError(f"task.positive {self.positive!r} is not among task.classes {list(self.classes)}")
        if self.threshold != 0.5 and self.positive is None:
            raise ValueError("task.threshold needs task.positive: whose probability is held against it?")

    def _check_findings(self) -> None:
        if not self.classes:
            raise ValueError(
                "task.kind multilabel needs task.classes: the findings, in the order of the model's outputs"
            )
        unfit = [name for name in self.classes if not name.strip() or _SEPARATOR in name or not name.isprintable()]
        if unfit:
            raise ValueError(f"task.classes: a finding's name is printable, not empty and without '|'; got {unfit}")
        if self.positive is not None:
            raise ValueError("task.positive is for two classes; multilabel tasks have none: leave it out")
        if isinstance(self.threshold, dict) and set(self.threshold) != set(self.classes):
            lacking = [name for name in self.classes if name not in self.threshold]
            named = set(self.classes)
            unknown = [name for name in self.threshold if name not in named]
            raise ValueError(
                f"task.threshold must name every finding of task.classes: lacking {lacking}, unknown {unknown}"
            )
