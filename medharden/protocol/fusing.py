"""The part of the protocol's schema that says how the released model answers, and what a referral counts as."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medharden.protocol.base import OpenFraction, Strict

__all__ = ["Fusion", "Referred"]


class Referred(Strict):
    """What a case that `guarded` refers counts as, in every clean endpoint on answers.

    Attributes:
        counts_as: `not_answered`, which is not right (intention to diagnose); `model_answer`, as if the reader left it
            at the answer that stands beside the flag; `right`, as if the reader made no mistake.
        reason: how it is known what the reader does on referred cases.
    """

    counts_as: Literal["not_answered", "model_answer", "right"] = "not_answered"
    reason: Annotated[str, Field(pattern=r"\S")] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Referred:
        if self.counts_as != "not_answered" and self.reason is None:
            raise ValueError(
                f"fusion.referred: counts_as {self.counts_as} needs its reason: what does the reader do on referred "
                "cases, and how is that known?"
            )
        return self


class Fusion(Strict):
    """How the released model answers.

    Attributes:
        mode: `clean`, `robust`, `mixed` or `guarded`.
        referral_budget: share of clean cases that `guarded` may refer, of all and of each class.
        referral_by_class: other budgets, by class or finding.
        referral_attacked: share of attacked cases that `guarded` may refer; 1 asks for nothing, and every verdict on a
            `guarded` release says so.
        referred: what a referred case counts as.
    """

    mode: Literal["clean", "robust", "mixed", "guarded"] = "mixed"
    referral_budget: OpenFraction = 0.05
    referral_by_class: dict[Annotated[str, Field(min_length=1)], OpenFraction] = {}
    referral_attacked: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    referred: Referred = Referred()
