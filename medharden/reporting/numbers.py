"""How numbers read in the report: one format a kind of quantity, everywhere the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

__all__ = [
    "count",
    "duration",
    "eps_text",
    "moment",
    "percent",
    "percent_interval",
    "points",
    "points_interval",
    "points_named",
    "score_change",
    "telling_digits",
]

_MINUS = "\N{MINUS SIGN}"
_MOST_DIGITS = 4


def percent(value: float, digits: int = 1) -> str:
    """A proportion in [0, 1] as per cent: `97.4%`."""
    return f"{_plain(100 * value, digits)}%"


def percent_interval(interval: tuple[float, float], digits: int = 1) -> str:
    """An interval of proportions: `[96.1, 98.5]`, in per cent."""
    return f"[{_plain(100 * interval[0], digits)}, {_plain(100 * interval[1], digits)}]"


def points(value: float, digits: int = 1) -> str:
    """A difference of proportions in percentage points, with its sign: `+0.3`; zero has none."""
    text = f"{100 * value:+.{digits}f}"
    return _unsigned_zero(text).replace("-", _MINUS)


def points_named(value: float, digits: int = 1) -> str:
    """The same with its unit: `+0.3 pp`."""
    return f"{points(value, digits)}\N{NO-BREAK SPACE}pp"


def points_interval(interval: tuple[float, float], digits: int = 1) -> str:
    """An interval of differences: `[-1.2, +0.6]`, in percentage points."""
    return f"[{points(interval[0], digits)}, {points(interval[1], digits)}]"


def score_change(value: float, digits: int = 1) -> str:
    """A change of a score that is no proportion, with its sign and two decimals more: `+0.012`."""
    return _unsigned_zero(f"{value:+.{digits + 2}f}").replace("-", _MINUS)


def telling_digits(value: float, limit: float, shown: Callable[[float, int], str]) -> int:
    """Fewest decimals, from one up, at which a value does not read like the limit that it differs from.

    A confidence limit of -2.04 points against a margin of 2.0 would otherwise look as if it met it.
    """
    if value == limit:
        return 1
    return next((d for d in range(1, _MOST_DIGITS) if shown(value, d) != shown(limit, d)), _MOST_DIGITS)


def count(value: int) -> str:
    """A whole number with thousands set apart: `4,007,548`."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """A wall-clock time: `7.8 s`, `3 min 20 s`, `1 h 04 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(iso: str) -> str:
    """A recorded ISO 8601 time to the minute: `2026-01-12 11:10 UTC`; anything else stays as it is."""
    try:
        at = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = at.strftime("%z")
    return f"{at:%Y-%m-%d %H:%M}" + (" UTC" if zone == "+0000" else f" {zone}" if zone else "")


def eps_text(eps: float, unit: str) -> str:
    """A budget in the protocol's own unit: `2/255`, `8 HU`, `0.00784 of the input range`."""
    if unit == "1/255":
        return f"{eps:g}/255"
    if unit == "HU":
        return f"{eps:g} HU"
    return f"{eps:.4g} of the input range"


def _plain(value: float, digits: int) -> str:
    return _unsigned_zero(f"{value:.{digits}f}").replace("-", _MINUS)


def _unsigned_zero(text: str) -> str:
    return text.lstrip("+-") if float(text) == 0 else text
