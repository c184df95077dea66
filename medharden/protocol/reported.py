"""What the protocol states for the report: population, reference standard, hazards, who signs, how long it is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medharden.protocol.base import Strict

__all__ = ["Hazard", "Signatory", "Statements"]

_Text = Annotated[str, Field(min_length=1)]


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
        reference_standard: how the labels were established.
        provenance: where the images come from, and how they were de-identified.
        hazards: those that the hardening bears on.
        residual_risk: the overall judgement.
        side_effects: of the hardening, on users and workflow.
        sign_off: who signs; empty leaves blank lines.
        retention: how long the run directory is kept, where, and by whom.
        license: of the hardened model, as its card names it.
    """

    population: _Text | None = None
    reference_standard: _Text | None = None
    provenance: _Text | None = None
    hazards: tuple[Hazard, ...] = ()
    residual_risk: _Text | None = None
    side_effects: _Text | None = None
    sign_off: tuple[Signatory, ...] = ()
    retention: _Text | None = None
    license: _Text | None = None
