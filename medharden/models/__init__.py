"""Loading pretrained classifiers, and the hardened model built on one."""

from medharden.models.classifier import Classifier, check_classifier, logits_in_batches, state_digest
from medharden.models.hardened import Assessment, DecisionView, HardenedClassifier, mix, probability_gap
from medharden.models.loading import load_classifier
from medharden.models.storage import describe_hardened, hardened_bytes, load_hardened
from medharden.models.timm_import import timm_module

__all__ = [
    "Assessment",
    "Classifier",
    "DecisionView",
    "HardenedClassifier",
    "check_classifier",
    "describe_hardened",
    "hardened_bytes",
    "load_classifier",
    "load_hardened",
    "logits_in_batches",
    "mix",
    "probability_gap",
    "state_digest",
    "timm_module",
]
