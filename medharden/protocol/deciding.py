"""The part of the protocol's schema that the gate decides by: endpoints, margins, looks, subgroups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import Fraction, OpenFraction, Strict

__all__ = ["CO_PRIMARY", "FINDING_METRICS", "Endpoints", "Margin", "Robustness", "Subgroups"]

FINDING_METRICS = ("finding_accuracy", "finding_auroc")
"""Metrics of multi-label tasks alone."""

CO_PRIMARY = ("accuracy", "recall")
"""Clean metrics that every protocol holds, and that must pass whatever else may."""


class Margin(Strict):
    """A non-inferiority endpoint.

    Attributes:
        metric: `accuracy`; `recall` (one endpoint a class: sensitivity and specificity for two classes);
            `balanced_accuracy`; `auroc` (of the positive of two classes, of more the mean of each against the rest); or
            `brier` (squared error summed over classes, in [0, 2]; its margin is on the increase). Of a multilabel
            task `accuracy` asks for every finding of a case, `recall` is sensitivity and specificity of each finding,
            `auroc` and `brier` are means over findings, `finding_accuracy` is the mean share of findings answered
            rightly, and `finding_auroc` one AUROC endpoint a finding.
        margin: the largest loss that is clinically acceptable, as a proportion (0.02 is two points).
        findings: of a multilabel task, of which findings `recall` or `finding_auroc` is asked; null asks it of all. The
            others are in the report and decide nothing.
        justification: why, in clinical words; null where nobody has justified it, and every verdict says so.
    """

    metric: Literal["accuracy", "recall", "balanced_accuracy", "auroc", "brier", "finding_accuracy", "finding_auroc"]
    margin: OpenFraction
    findings: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    justification: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Margin:
        if self.findings is not None and self.metric not in ("recall", "finding_auroc"):
            raise ValueError(f"endpoints.noninferiority: findings are for recall and finding_auroc, not {self.metric}")
        return self


class Robustness(Strict):
    """The robustness endpoint: above a floor, and better than the original; both by confidence limit."""

    floor: Fraction = 0.0
    justification: str | None = None


class Endpoints(Strict):
    """What the gate decides on.

    Attributes:
        alpha: one-sided error of each endpoint; 0.025 goes with 95 % intervals.
        multiplicity: `all` endpoints must pass, so alpha is not split. `any-holm`: accuracy, recall and the robustness
            endpoints are co-primary and must all pass; of the other metrics one suffices, each held against Holm's
            share of alpha, unless one of them is shown to be worse.
        authorised: SHA-256 of the `hardened.safetensors` of the last authorised release, which the gate then asks for:
            the new release must be non-inferior to it too. Null where there is none.
        looks: how many evaluations of the test split may be finished. Each adds up to alpha to the chance of passing
            wrongly; an evaluation after the last is refused, and a run with more is INVALID.
        noninferiority: clean endpoints; accuracy and recall must be there, so that no other metric decides alone.
        robustness: attacked endpoints.
    """

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.025
    multiplicity: Literal["all", "any-holm"] = "all"
    authorised: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    looks: Annotated[int, Field(ge=1)] = 1
    noninferiority: tuple[Margin, ...] = (
        Margin(metric="accuracy", margin=0.02),
        Margin(metric="recall", margin=0.05),
    )
    robustness: Robustness = Robustness()

    @model_validator(mode="after")
    def _complete(self) -> Endpoints:
        metrics = [m.metric for m in self.noninferiority]
        if len(set(metrics)) != len(metrics) or not set(CO_PRIMARY) <= set(metrics):
            raise ValueError(
                "endpoints.noninferiority must hold accuracy and recall, and no metric twice: an accuracy that is kept "
                f"by trading one class for another is a clinical loss; got {metrics}"
            )
        others = len(metrics) - len(CO_PRIMARY)
        if self.multiplicity == "any-holm" and others < 2:
            raise ValueError(
                "endpoints.multiplicity any-holm needs two metrics or more beside accuracy and recall, of which any "
                f"may pass; got {others}"
            )
        return self


class Subgroups(Strict):
    """In whom the change of accuracy is shown apart.

    Attributes:
        columns: of the manifest, or `sex`, `age`, `site`, `scanner` of DICOM headers. Their values go into the records.
        min_cases: a group of fewer test cases is INCONCLUSIVE.
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
