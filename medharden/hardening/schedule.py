"""What changes over the schedule: the learning rate and the radius, both functions of the share of steps done."""

from __future__ import annotations

import math

from medharden.protocol import Hardening

__all__ = ["epochs_and_batches", "learning_rate", "radius_share"]


def learning_rate(settings: Hardening, done: float) -> float:
    """One cycle: linear rise over `warmup`, then half a cosine to 1 % of the peak.

    Args:
        settings: peak and warm-up share.
        done: share of all steps taken, in [0, 1].
    """
    if done < settings.warmup:
        return settings.learning_rate * max(0.05, done / settings.warmup)
    fall = (done - settings.warmup) / (1 - settings.warmup)
    return settings.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * fall)) / 2)


def radius_share(settings: Hardening, done: float) -> float:
    """Share of eps in force: 0 for `hold` of the schedule, then a linear rise to 1 over `ramp` of it.

    Ngnawe et al., "Robust Fine-Tuning from Non-Robust Pretrained Models: Mitigating Suboptimal Transfer with
    Epsilon-Scheduling", ICLR 2026, arXiv:2509.23325, hold eps at 0 at first, so that the task is learnt before it is
    attacked.
    """
    after = done - settings.hold
    if after < 0 or (after == 0 and settings.hold > 0):
        return 0.0
    return 1.0 if settings.ramp == 0 else min(1.0, after / settings.ramp)


def epochs_and_batches(settings: Hardening, cases: int) -> tuple[int, int]:
    """How many epochs a branch trains, and of how many batches each.

    Args:
        settings: epochs, least number of steps, batch size, replays of `free`.
        cases: of the training split.
    """
    batches = max(1, cases // settings.batch_size)
    replays = settings.replays if settings.method == "free" else 1
    return -(-max(settings.epochs * batches, settings.min_steps) // (batches * replays)), batches
