"""What was assumed of the original, as findings: its normalisation and names, and the order of its outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy

from medharden.record import Finding, ModelRecord
from medharden.stats import mcnemar

__all__ = ["model_findings"]

_SURE = 1e-3
_MOST_SHOWN = 8

Labels = npt.NDArray[np.int64]


def model_findings(
    record: ModelRecord, labels: Labels, answered: Labels, classes: tuple[str, ...]
) -> Iterator[Finding]:
    """A finding for each thing that nothing confirms; the order of classes is held against the validation split.

    Args:
        record: of the original.
        labels: (N,) classes of the validation cases, or (N, L) findings.
        answered: the same, as the original answers.
        classes: the cohort's, in the order that was taken for that of the outputs.
    """
    for text in record.assumed:
        yield Finding("model.assumed", "warning", f"Assumed of the model: {text}.")
    if record.from_module:
        said = record.origins.get("built again", "")
        severity = "warning" if said.startswith("no") else "info"
        message = f"The original was given as a module in Python. Built again from its name: {said}."
        yield Finding("model.given_as_module", severity, message)
    if labels.ndim == 1 and not record.class_names:
        yield _order(labels, answered, classes)


def _order(labels: Labels, answered: Labels, classes: tuple[str, ...]) -> Finding:
    """Whether another order of the outputs would be right more often than this one, beyond chance."""
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (answered, labels), 1)
    _, best = scipy.optimize.linear_sum_assignment(-confusion)
    right, would = answered == labels, best[answered] == labels
    shares = [f"{name} {right[labels == k].mean():.3f}" for k, name in enumerate(classes) if (labels == k).any()]
    more = ", ..." if len(shares) > _MOST_SHOWN else ""
    said = (
        f"The model's file does not name its outputs; they were taken in the order {', '.join(classes)}. Right on "
        f"validation, by class: {', '.join(shares[:_MOST_SHOWN])}{more}"
    )
    gained, lost = int((would & ~right).sum()), int((right & ~would).sum())
    if gained > lost and mcnemar(gained, lost) < _SURE:
        order = ", ".join(classes[k] for k in best.tolist())
        better = f"in the order {order} {would.mean():.3f} would be right instead of {right.mean():.3f}"
        return Finding("model.class_order", "critical", f"{said}; {better}: set task.classes to the model's order.")
    return Finding("model.class_order", "info", f"{said}; no other order would do better beyond chance.")
