"""Records of the same protocol under other seeds (`stability.json`)."""

from __future__ import annotations

from dataclasses import dataclass

from medharden.record.common import Environment

__all__ = ["SeedOutcome", "StabilityRecord"]


@dataclass(frozen=True)
class SeedOutcome:
    """What hardening under one seed came to, on validation.

    Attributes:
        seed: of sampling, training and calibration; splits and the attack here are the same for all.
        released: whether it is the protocol's own, whose model is released.
        weight: the branch's share in `mixed`.
        best_epoch: whose weights were kept.
        clean_correct: validation cases that the composite answers rightly.
        gained, lost: those that only the composite, or only the original, answers rightly.
        referred: those that the composite refers.
        robust: of the attacked ones, those that stand.
    """

    seed: int
    released: bool
    weight: float
    best_epoch: int
    clean_correct: int
    gained: int
    lost: int
    referred: int
    robust: int


@dataclass(frozen=True)
class StabilityRecord:
    """The same protocol, data and original under several seeds: a spread, and no choice among them.

    Attributes:
        protocol, cohort, hardened: digests of the run that it is beside.
        cases, attacked: of validation, and how many of them were attacked.
        attack: on each composite, in words.
        seeds: the protocol's own first.
    """

    protocol: str
    cohort: str
    hardened: str
    cases: int
    attacked: int
    attack: str
    seeds: tuple[SeedOutcome, ...]
    environment: Environment
    started: str
    finished: str
