"""How the gate puts numbers into sentences."""

from __future__ import annotations

from medharden.record import Endpoint

__all__ = ["apart", "number", "percent", "sample", "uses_up", "valued"]

_FEWEST_DECIMALS, _MOST_DECIMALS = 3, 8
_DIFFERENCES = ("noninferiority", "robust_gain", "robust_change", "subgroup")


def percent(level: float) -> str:
    """A confidence level, such as `95 %`."""
    return f"{100.0 * level:.5g} %"


def apart(value: float, relation: str, bound: float, unit: str = "") -> str:
    """`value relation bound`, with as many decimals as it takes to see that two numbers differ.

    Args:
        value: a share, a difference of shares, or a score.
        bound: of the same kind.
        relation: the words between them.
        unit: `pp` for differences of shares, in percentage points; `%` for shares; else a score's own.
    """
    fewest = _FEWEST_DECIMALS - 2 if unit else _FEWEST_DECIMALS
    for decimals in range(fewest, _MOST_DECIMALS):
        shown = number(value, decimals, unit), number(bound, decimals, unit)
        if shown[0] != shown[1]:
            break
    else:
        shown = number(value, fewest, unit), number(bound, fewest, unit)
    return f"{shown[0]} {relation} {shown[1]}"


def number(value: float, decimals: int, unit: str = "") -> str:
    """A number with a true minus, such as `−4.6 pp`, `85.7%` or `0.013`; a zero has no sign."""
    text = f"{100.0 * value if unit else value:.{decimals}f}"
    text = text.removeprefix("-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")
    return f"{text} {unit}" if unit == "pp" else f"{text}{unit}"


def valued(e: Endpoint, value: float) -> str:
    """A value of an endpoint in its unit: scores in their own, differences in points, shares in per cent."""
    unit = "" if e.kind == "brier" else "pp" if e.kind in _DIFFERENCES else "%"
    return number(value, 1 if unit else 3, unit)


def uses_up(change: float, margin: float, unit: str = "") -> str:
    """That an observed change is the margin or more, in the unit of `apart`."""
    decimals = 1 if unit else 3
    return (
        f"the observed change {number(change, decimals, unit)} uses up the margin of {number(margin, decimals, unit)}"
    )


def sample(cases: int, patients: int, effective: float | None, what: str) -> str:
    """What a number rests on, in brackets: cases, patients where they repeat, and counts."""
    if patients == cases:
        return f"(n = {cases}, {what})"
    worth = "" if effective is None else f", worth {effective:.1f} independent cases"
    return f"(n = {cases} of {patients} patients{worth}; {what})"
