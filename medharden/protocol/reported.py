"""What the protocol states for the report: population, reference standard, hazards, who signs, how long it is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import OpenFraction, Strict

__all__ = ["TESTED", "Hazard", "Signatory", "StatedThreat", "Statements", "Tester", "ThreatName"]

_Text = Annotated[str, Field(min_length=1)]


ThreatName = Literal[
    "evasion_white_box",
    "evasion_queries",
    "beyond_budget",
    "masked_gradients",
    "referral_flood",
    "tampering",
    "data_poisoning",
    "model_poisoning",
    "membership_inference",
    "reconstruction",
    "model_extraction",
    "acquisition_chain",
]
"""The rows of the matrix of threats, mitigations and tests."""

TESTED: tuple[ThreatName, ...] = ("evasion_white_box", "evasion_queries")
"""Those that the protocol's own threat and suite are about."""


class Hazard(Strict):
    """A hazard that the hardening bears on, as the risk management file has it.

    Attributes:
        hazard: in words.
        link: where the risk management file holds it, such as `RMF-017`; shown as text.
        residual_risk: what remains, as judged there.
    """

    hazard: _Text
    link: _Text | None = None
    residual_risk: _Text | None = None


class Tester(Strict):
    """Who tested, as IEC 81001-5-1 asks: a tester is not to judge what he developed.

    Attributes:
        role: `developer` of the model or its hardening, or `independent` of them.
        name: person or body; null where it is not to be printed.
    """

    role: Literal["developer", "independent"]
    name: _Text | None = None


class StatedThreat(Strict):
    """What the team states of one threat, beside what the records show.

    Attributes:
        threat: which row of the matrix.
        scope: `in_scope`, or `ruled_out`, which needs its reason.
        reason: why it can't arise in the intended use.
        mitigation: outside the model, such as a closed network.
        test: done outside medharden, with its result and where it is filed.
        tester: who did that test.
        residual_risk: what remains, as judged in the risk management file.
    """

    threat: ThreatName
    scope: Literal["in_scope", "ruled_out"] = "in_scope"
    reason: _Text | None = None
    mitigation: _Text | None = None
    test: _Text | None = None
    tester: Tester | None = None
    residual_risk: _Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> StatedThreat:
        where = f"report.threats: {self.threat}"
        if (self.scope == "ruled_out") != (self.reason is not None):
            raise ValueError(f"{where}: ruled_out needs its reason, and a reason is for that alone")
        if self.scope == "ruled_out" and self.threat in TESTED:
            raise ValueError(f"{where} is what the protocol's threat and suite are about; it can't be ruled out")
        if self.tester is not None and self.test is None:
            raise ValueError(f"{where}: a tester is of a test; state the test and its result too")
        return self


class Signatory(Strict):
    """Who signs the report, and what the signature means.

    Attributes:
        meaning: such as `Reviewed`.
        role: such as `Head of radiology`.
        name: of the person; null leaves a blank line.
    """

    meaning: _Text
    role: _Text
    name: _Text | None = None


class Statements(Strict):
    """What no record can hold and a reader of the report needs; each is shown as `not stated` where it is null.

    Attributes:
        population: whose images they are.
        prevalence: of the positive one of two classes in the intended population, in (0, 1): what predictive values
            and net benefit are shown at, beside that of the test split.
        reference_standard: how the labels were established.
        provenance: where the images come from, and how they were de-identified.
        hazards: those that the hardening bears on.
        threats: what the team states of threats: ruled out, mitigated or tested elsewhere, and what remains.
        tester: who ran this evaluation.
        residual_risk: the overall judgement.
        side_effects: of the hardening, on users and workflow.
        sign_off: who signs; empty leaves blank lines.
        retention: how long the run directory is kept, where, and by whom.
        license: of the hardened model, as its card names it.
    """

    population: _Text | None = None
    prevalence: OpenFraction | None = None
    reference_standard: _Text | None = None
    provenance: _Text | None = None
    hazards: tuple[Hazard, ...] = ()
    threats: tuple[StatedThreat, ...] = ()
    tester: Tester | None = None
    residual_risk: _Text | None = None
    side_effects: _Text | None = None
    sign_off: tuple[Signatory, ...] = ()
    retention: _Text | None = None
    license: _Text | None = None

    @model_validator(mode="after")
    def _once(self) -> Statements:
        named = [stated.threat for stated in self.threats]
        if len(set(named)) != len(named):
            raise ValueError(f"report.threats names a threat twice; got {named}")
        return self
