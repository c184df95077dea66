"""medharden: adversarial hardening of medical image classifiers at no clean loss, with the evidence for it.

The names below are the public face for Python; each is imported when it is first used, so that importing the package
stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medharden._version import __version__ as __version__

if TYPE_CHECKING:
    from medharden.data import Cohort, load_cohort, load_pseudonym_key
    from medharden.errors import MedHardenError
    from medharden.evaluating import evaluate
    from medharden.gating import decide, gate
    from medharden.hardening import fine_tune, harden
    from medharden.models import Classifier, HardenedClassifier, Normaliser, load_classifier, load_hardened
    from medharden.predicting import predict, read_case
    from medharden.protocol import Protocol, load_protocol
    from medharden.reporting import render
    from medharden.verifying import sign, verify

__all__ = [
    "Classifier",
    "Cohort",
    "HardenedClassifier",
    "MedHardenError",
    "Normaliser",
    "Protocol",
    "decide",
    "evaluate",
    "fine_tune",
    "gate",
    "harden",
    "load_classifier",
    "load_cohort",
    "load_hardened",
    "load_protocol",
    "load_pseudonym_key",
    "predict",
    "read_case",
    "render",
    "sign",
    "verify",
]

_HOMES = {
    "data": ("Cohort", "load_cohort", "load_pseudonym_key"),
    "errors": ("MedHardenError",),
    "evaluating": ("evaluate",),
    "gating": ("decide", "gate"),
    "hardening": ("fine_tune", "harden"),
    "models": ("Classifier", "HardenedClassifier", "Normaliser", "load_classifier", "load_hardened"),
    "predicting": ("predict", "read_case"),
    "protocol": ("Protocol", "load_protocol"),
    "reporting": ("render",),
    "verifying": ("sign", "verify"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return _imported(f"medharden.{home}", name)
    raise AttributeError(f"module 'medharden' has no attribute {name!r}")


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        from medharden.extras import missing

        lacking = missing(error)
        if lacking is None:
            raise
        raise lacking from error
