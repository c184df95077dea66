"""What every record may hold: verdicts, findings, the environment; and the callback of long stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Environment", "Finding", "Progress", "Verdict"]


Progress = Callable[[str, int, int], None]
"""What a long stage calls as it goes: the stage's name, units done, units in all."""


class Verdict(StrEnum):
    """What an endpoint, or the whole gate, came to. Order of gravity: PASS, INCONCLUSIVE, FAIL, INVALID."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    INCONCLUSIVE = "INCONCLUSIVE"
    FAIL = "FAIL"
    INVALID = "INVALID"


@dataclass(frozen=True)
class Finding:
    """Something a reader of the report must know.

    Attributes:
        code: a stable, dotted name, such as `hardening.collapse`.
        severity: `info`, `warning` or `critical`.
        message: one or two plain sentences.
    """

    code: str
    severity: str
    message: str


@dataclass(frozen=True)
class Environment:
    """What the run ran on; reproducibility is claimed for the same stack only.

    Attributes:
        code: SHA-256 over medharden's own source files: a version may be changed where it lies.
        processes: that shared the work, each on a device of its own or of its kind.
        precision: in which the branch's layers were trained; all else is `fp32`.
    """

    medharden: str
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int
    code: str = ""
    processes: int = 1
    precision: str = "fp32"
