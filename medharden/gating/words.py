"""How the gate puts numbers into sentences."""

from __future__ import annotations

__all__ = ["apart", "percent", "sample"]

_FEWEST_DECIMALS, _MOST_DECIMALS = 3, 8


def percent(level: float) -> str:
    """A confidence level, such as `95 %`."""
    return f"{100.0 * level:.5g} %"


def apart(value: float, relation: str, bound: float) -> str:
    """`value relation bound`, with as many decimals as it takes to see that two numbers differ."""
    for decimals in range(_FEWEST_DECIMALS, _MOST_DECIMALS):
        if f"{value:.{decimals}f}" != f"{bound:.{decimals}f}":
            break
    else:
        decimals = _FEWEST_DECIMALS
    return f"{value:.{decimals}f} {relation} {bound:.{decimals}f}"


def sample(cases: int, patients: int, effective: float | None, what: str) -> str:
    """What a number rests on, in brackets: cases, patients where they repeat, and counts."""
    if patients == cases:
        return f"(n = {cases}, {what})"
    worth = "" if effective is None else f", worth {effective:.1f} independent cases"
    return f"(n = {cases} of {patients} patients{worth}; {what})"
