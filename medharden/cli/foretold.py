"""How long each stage of a run takes, on a few answers and gradients measured before it begins."""

from __future__ import annotations

from medharden.attacks import passes
from medharden.data import Cohort
from medharden.hardening.allotting import GRADIENT, validation_work
from medharden.hardening.measuring import quick_costs
from medharden.hardening.schedule import epochs_and_batches
from medharden.models import Classifier
from medharden.protocol import Protocol

__all__ = ["foretell"]

_STEP = 1.5  # gradients that a training step takes
_SANITY_SHARE = 0.1
_CORRUPTING = 0.002  # seconds a case, at 224 pixels
_REPORT = 8.0  # seconds; drawing and setting do not depend on the cohort's size


def foretell(original: Classifier, cohort: Cohort, protocol: Protocol, device: str) -> dict[str, float]:
    """Seconds of each stage that comes, by its name, if every case withstands every attack; no test case is answered.

    Args:
        original: as loaded; not modified.
        cohort: as read.
        protocol: settings of hardening, suite and fusion.
        device: such as `cpu`.
    """
    forward, gradient = quick_costs(original, cohort, protocol, device)
    settings, sizes = protocol.hardening, {s: len(cohort.indices(s)) for s in ("train", "val", "test")}
    epochs, _ = epochs_and_batches(settings, sizes["train"])
    replays = settings.replays if settings.method == "free" else 1
    mixed = protocol.fusion.mode == "mixed"
    probes, calibration = validation_work(settings, sizes["train"], sizes["val"], mixed=mixed)
    attacked = min(protocol.suite.cases or sizes["test"], sizes["test"])
    suite = attacked * sum(passes(attack, len(cohort.classes) - 1) for attack in protocol.suite.attacks) * gradient
    clean = 2 * sizes["test"] * forward
    corrupted = len(protocol.shift.corruptions) * len(protocol.shift.severities)
    stages = {
        "prepare": 2 * sizes["train"] * forward,
        "harden": epochs * sizes["train"] * _STEP * gradient * replays + probes * gradient / GRADIENT,
        "calibrate": calibration * gradient / GRADIENT,
        "attack original": clean + suite,
        "attack branch": clean + suite,
        "attack release": 2 * (clean + suite),
        "accuracy curve": 4 * attacked * protocol.suite.curve_steps * gradient,
        "sanity curves": _SANITY_SHARE * 4 * suite if protocol.suite.sanity_cases else 0.0,
        "corruptions": corrupted * sizes["test"] * (3 * forward + _CORRUPTING),
        "report": _REPORT,
    }
    return {name: seconds for name, seconds in stages.items() if seconds}
