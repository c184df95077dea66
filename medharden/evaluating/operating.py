"""Thresholds from validation, at which the original and the release have the sensitivity or specificity asked for."""

from __future__ import annotations

import numpy as np

from medharden.data import Cohort
from medharden.errors import RunError
from medharden.evaluating.subjects import subjects_of
from medharden.models import Classifier, HardenedClassifier, probabilities
from medharden.protocol import Protocol
from medharden.record import OperatingThreshold
from medharden.stats import threshold_at

__all__ = ["operating_thresholds"]


def operating_thresholds(
    reference: Classifier, model: HardenedClassifier, cohort: Cohort, protocol: Protocol, batch_size: int, device: str
) -> tuple[OperatingThreshold, ...]:
    """For each of the protocol's operating points, both models' thresholds; the test split is not looked at.

    Raises:
        RunError: validation lacks a case of either class.
    """
    wanted = protocol.endpoints.operating_points
    if not wanted:
        return ()
    places = cohort.indices("val")
    inputs = cohort.stream(places, device)
    k = cohort.classes.index(protocol.task.positive or "")
    positive = cohort.labels(places).numpy() == k
    if not positive.any() or positive.all():
        raise RunError("endpoints.operating_points need validation cases of both classes, from which thresholds come")
    original, _, composite = subjects_of(reference, model, inputs, batch_size)
    scores = [probabilities(s.logits.cpu().double(), multilabel=False).numpy()[:, k] for s in (original, composite)]
    found = []
    for point in wanted:
        side = ~positive if point.fixed == "specificity" else positive
        before, after = (threshold_at(of, positive, fixed=point.fixed, at=point.at) for of in scores)
        reached = [
            float(np.mean((of[side] >= limit) == (point.fixed == "sensitivity")))
            for of, limit in zip(scores, (before, after), strict=True)
        ]
        found.append(OperatingThreshold(point.fixed, point.at, before, after, int(side.sum()), reached[0], reached[1]))
    return tuple(found)
