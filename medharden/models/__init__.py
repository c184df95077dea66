"""Loading pretrained classifiers, and the hardened model built on one."""

from medharden.models.answers import (
    answered_rightly,
    answers,
    calibrated,
    divergence,
    probabilities,
    probability_of_truth,
    task_loss,
)
from medharden.models.classifier import Classifier, check_classifier, logits_in_batches, state_digest
from medharden.models.contract import Contract, contract_fields
from medharden.models.description import describe_hardened
from medharden.models.findings import finding_support, mix_findings
from medharden.models.given import Normaliser
from medharden.models.hardened import (
    Assessment,
    DecisionView,
    HardenedClassifier,
    fuse,
    mix,
    refers,
    refers_findings,
    support,
)
from medharden.models.hugging_face import transformers_module
from medharden.models.loading import load_classifier
from medharden.models.low_rank import LowRank, updated
from medharden.models.runtime import RuntimeModel, open_onnx, read_onnx
from medharden.models.source_view import SourceView, view_fields
from medharden.models.storage import hardened_bytes, load_hardened
from medharden.models.timm_import import timm_module
from medharden.models.torchvision_view import torchvision_transforms

__all__ = [
    "Assessment",
    "Classifier",
    "Contract",
    "DecisionView",
    "HardenedClassifier",
    "LowRank",
    "Normaliser",
    "RuntimeModel",
    "SourceView",
    "answered_rightly",
    "answers",
    "calibrated",
    "check_classifier",
    "contract_fields",
    "describe_hardened",
    "divergence",
    "finding_support",
    "fuse",
    "hardened_bytes",
    "load_classifier",
    "load_hardened",
    "logits_in_batches",
    "mix",
    "mix_findings",
    "open_onnx",
    "probabilities",
    "probability_of_truth",
    "read_onnx",
    "refers",
    "refers_findings",
    "state_digest",
    "support",
    "task_loss",
    "timm_module",
    "torchvision_transforms",
    "transformers_module",
    "updated",
    "view_fields",
]
