"""The part of the protocol's schema that the gate decides by: endpoints, margins, looks, subgroups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Fraction, OpenFraction, Strict
from medharden.protocol.further import OperatingPoint, WorstGroup

__all__ = [
    "CO_PRIMARY",
    "FINDING_METRICS",
    "GRADE_METRICS",
    "Bound",
    "ClassFloor",
    "Endpoints",
    "Margin",
    "Robustness",
    "Subgroups",
    "unknown_keys",
]

GRADE_METRICS = ("quadratic_kappa", "grade_error", "within_one_grade")
"""Metrics of ordinal tasks alone."""

FINDING_METRICS = ("finding_accuracy", "finding_auroc")
"""Metrics of multi-label tasks alone."""

CO_PRIMARY = ("accuracy", "recall")
"""Clean metrics that every protocol holds, and that must pass whatever else may."""

_BY_CLASS = ("recall", "finding_auroc")
_FLOORED = ("accuracy", "recall", "auroc")
_SIDES = ("sensitivity", "specificity")

LARGEST_ALPHA = 0.05
"""One-sided; a larger error would be a claim that nobody in the field takes for one."""

MOST_LOOKS = 20
"""Who looks more often at one test split chooses on it: it is a validation split by then."""

LARGEST_BARE_MARGIN = 0.2
"""Without a reason: a loss of every fifth case is none that goes without saying."""

ClassKey = Annotated[str, Field(min_length=1)]
"""`sensitivity`, `specificity`, a class or finding, or of a multilabel task `sensitivity:FINDING`."""


class Bound(Strict):
    """A non-inferiority margin with its reason.

    Attributes:
        margin: the largest loss that is clinically acceptable, as a proportion (0.02 is two points); above 0.2 it needs
            its justification.
        justification: why, in clinical words; null where nobody has justified it, and every verdict says so.
    """

    margin: OpenFraction
    justification: str | None = None


class ClassFloor(Strict):
    """The least robust recall of one class or finding, with its reason."""

    floor: Fraction
    justification: str | None = None


def unknown_keys(keys: Iterable[str], classes: tuple[str, ...], *, multilabel: bool, positive: bool) -> list[str]:
    """The keys of a `by_class` that name none of these classes.

    Args:
        keys: as `ClassKey`.
        classes: names of classes or findings.
        multilabel: whether a case may have several.
        positive: whether one of two classes is the positive one, so that the other's recall is specificity.
    """
    known = set(classes)
    if multilabel or positive:
        known |= set(_SIDES)
    if multilabel:
        known |= {f"{side}:{name}" for side in _SIDES for name in classes}
    return sorted(set(keys) - known)


class Margin(Bound):
    """A non-inferiority endpoint.

    Attributes:
        metric: `accuracy`; `recall` (one endpoint a class: sensitivity and specificity for two classes);
            `balanced_accuracy`; `auroc` (of the positive of two classes, of more the mean of each against the rest); or
            `brier` (squared error summed over classes, in [0, 2]; its margin is on the increase). Of a multilabel
            task `accuracy` asks for every finding of a case, `recall` is sensitivity and specificity of each finding,
            `auroc` and `brier` are means over findings, `finding_accuracy` is the mean share of findings answered
            rightly, and `finding_auroc` one AUROC endpoint a finding. Of an ordinal task `quadratic_kappa` weighs
            errors by the square of the grades between, `grade_error` is the mean of these grades (its margin is on the
            increase, in grades), and `within_one_grade` the share answered rightly or one grade off.
        findings: of a multilabel task, of which findings `recall` or `finding_auroc` is asked; null asks it of all. The
            others are in the report and decide nothing.
        by_class: other margins of `recall` or `finding_auroc`, each with its own justification, by `sensitivity` or
            `specificity`, by class or finding, or by `sensitivity:FINDING`; the most specific holds.
        floor: least value of `accuracy`, `recall` (of each class) or `auroc` itself, which the original and the
            release must both be shown to reach; null asks for none.
    """

    metric: Literal[
        "accuracy",
        "recall",
        "balanced_accuracy",
        "auroc",
        "brier",
        "finding_accuracy",
        "finding_auroc",
        "quadratic_kappa",
        "grade_error",
        "within_one_grade",
    ]
    findings: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    by_class: dict[ClassKey, Bound] = {}
    floor: OpenFraction | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Margin:
        where = "endpoints.noninferiority"
        if self.findings is not None and self.metric not in _BY_CLASS:
            raise ValueError(f"{where}: findings are for recall and finding_auroc, not {self.metric}")
        if self.by_class and self.metric not in _BY_CLASS:
            raise ValueError(f"{where}: by_class is for recall and finding_auroc, not {self.metric}")
        if self.floor is not None and self.metric not in _FLOORED:
            raise ValueError(f"{where}: a floor is for {', '.join(_FLOORED)}, not {self.metric}")
        return self

    def of(self, *names: str) -> Bound:
        """The margin of one class: that of the first of these names which has its own, else this one."""
        return next((self.by_class[name] for name in names if name in self.by_class), self)

    @property
    def bounds(self) -> dict[str, Bound]:
        """Every margin that is stated, by what it is of."""
        return {self.metric: self, **{f"{self.metric} of {name}": bound for name, bound in self.by_class.items()}}


class Robustness(Strict):
    """What is asked under attack: of all cases and of each class, each by confidence limit.

    Attributes:
        floor: least robust accuracy; 0 asks for none, and every verdict says so.
        gain: by how much more than this the release is to be right under attack than the original; 0 asks for any gain
            at all, and every verdict says so.
        class_floor: least robust recall of each class or finding; null takes `floor`.
        by_class: other floors, by `sensitivity` or `specificity`, by class or finding, or by `sensitivity:FINDING`.
        classes: `co-primary`: each class must reach its floor and be no worse under attack than the original;
            `reported`: that is listed and decides nothing.
        reason: why robustness by class decides nothing, where it is reported alone.
        justification: why this floor, gain and floor by class, in clinical words.
    """

    floor: Fraction = 0.0
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_floor: Fraction | None = None
    by_class: dict[ClassKey, ClassFloor] = {}
    classes: Literal["co-primary", "reported"] = "co-primary"
    reason: Annotated[str, Field(pattern=r"\S")] | None = None
    justification: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Robustness:
        if (self.classes == "reported") != (self.reason is not None):
            raise ValueError(
                "endpoints.robustness: classes reported needs its reason, and a reason is for that alone: why may a "
                "release lose the robustness of one class?"
            )
        return self

    def floor_of(self, *names: str) -> ClassFloor:
        """The floor of one class: that of the first of these names which has its own, else the common one."""
        common = ClassFloor(
            floor=self.floor if self.class_floor is None else self.class_floor, justification=self.justification
        )
        return next((self.by_class[name] for name in names if name in self.by_class), common)

    @property
    def asked(self) -> bool:
        """Whether a floor, a floor for each class and a least gain are all stated."""
        return self.floor > 0 and self.gain > 0 and self.class_floor != 0


class Endpoints(Strict):
    """What the gate decides on.

    Attributes:
        alpha: one-sided error of each endpoint over all looks, 0.05 at most; 0.025 goes with 95 % intervals where there
            is one look.
        multiplicity: `all` endpoints must pass, so alpha is not split. `any-holm`: accuracy, recall and the robustness
            endpoints are co-primary and must all pass; of the other metrics one suffices, each held against Holm's
            share of alpha, unless one of them is shown to be worse.
        authorised: SHA-256 of the `hardened.safetensors` of the last authorised release, which the gate then asks for:
            the new release must be non-inferior to it too. Null where there is none.
        looks: how many looks at the test split are planned, of whatever model, 20 at most. Each is decided at alpha /
            looks; one after the last is refused, and a run with more is INVALID.
        noninferiority: clean endpoints; accuracy and recall must be there, so that no other metric decides alone. A
            protocol without `brier` holds calibration against nothing, and every verdict says so.
        robustness: attacked endpoints.
        operating_points: sensitivity where specificity is fixed on validation, and the reverse; two classes.
        worst_group: limits that every group of `subgroups.columns` must reach.
    """

    alpha: Annotated[float, Field(gt=0, le=LARGEST_ALPHA)] = 0.025
    multiplicity: Literal["all", "any-holm"] = "all"
    authorised: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    looks: Annotated[int, Field(ge=1, le=MOST_LOOKS)] = 1
    noninferiority: tuple[Margin, ...] = (
        Margin(metric="accuracy", margin=0.02),
        Margin(metric="recall", margin=0.05),
        Margin(metric="brier", margin=0.02),
    )
    robustness: Robustness = Robustness()
    operating_points: tuple[OperatingPoint, ...] = ()
    worst_group: tuple[WorstGroup, ...] = ()

    @property
    def alpha_per_look(self) -> float:
        """What each look may err by, so that all that are planned err by `alpha` at most (Bonferroni)."""
        return self.alpha / self.looks

    @model_validator(mode="after")
    def _complete(self) -> Endpoints:
        metrics = [m.metric for m in self.noninferiority]
        if len(set(metrics)) != len(metrics) or not set(CO_PRIMARY) <= set(metrics):
            raise ValueError(
                "endpoints.noninferiority must hold accuracy and recall, and no metric twice: an accuracy that is kept "
                f"by trading one class for another is a clinical loss; got {metrics}"
            )
        for what, keys in (
            ("operating_points", [point.key for point in self.operating_points]),
            ("worst_group", [wanted.metric for wanted in self.worst_group]),
        ):
            if len(set(keys)) != len(keys):
                raise ValueError(f"endpoints.{what} must hold nothing twice; got {keys}")
        for name, bound in ((name, bound) for m in self.noninferiority for name, bound in m.bounds.items()):
            if bound.margin > LARGEST_BARE_MARGIN and not (bound.justification or "").strip():
                raise ValueError(
                    f"endpoints.noninferiority: {name} has a margin of {bound.margin:g}; above {LARGEST_BARE_MARGIN:g} "
                    "it needs its justification: a loss just below it would pass"
                )
        others = len(metrics) - len(CO_PRIMARY)
        if self.multiplicity == "any-holm" and others < 2:
            raise ValueError(
                "endpoints.multiplicity any-holm needs two metrics or more beside accuracy and recall, of which any "
                f"may pass; got {others}"
            )
        return self


class Subgroups(Strict):
    """In whom clean performance, robustness and referral are shown apart.

    Attributes:
        columns: of the manifest, or `sex`, `age`, `site`, `scanner` of DICOM headers. Their values go into the records.
        min_cases: on fewer test cases the absence of harm is not shown, whatever the limits say; harm may be.
        age_bands: borders in years; a column that speaks of an age goes into the records as a band alone.
    """

    columns: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    min_cases: Annotated[int, Field(ge=1)] = 20
    age_bands: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (40, 60, 75)

    @model_validator(mode="after")
    def _consistent(self) -> Subgroups:
        if len({c.lower() for c in self.columns}) != len(self.columns):
            raise ValueError("subgroups.columns names a column twice")
        if list(self.age_bands) != sorted(set(self.age_bands)):
            raise ValueError("subgroups.age_bands must rise")
        return self
