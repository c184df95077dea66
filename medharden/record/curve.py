"""Records of accuracy over budgets: how many of the attacked cases stand at each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CURVE_RATIOS", "CurvePoint"]

CURVE_RATIOS = (0.25, 0.5, 1.0, 1.5, 2.0)
"""The budgets of the curve, in multiples of the protocol's; at 1 the suite measured."""


@dataclass(frozen=True)
class CurvePoint:
    """One point: of `cases`, `standing` are right without an attack and under attacks of this budget.

    Attributes:
        subject: `original` or `composite`.
        ratio: the budget as a multiple of the protocol's; 0 is no attack.
        eps: the budget in input units.
        attack: what measured it: `clean`, `suite` at the protocol's budget, else a search that began where the suite,
            or the search at the neighbouring budget, had ended.
    """

    subject: str
    ratio: float
    eps: float
    attack: str
    cases: int
    standing: int
