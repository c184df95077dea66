"""Differences of AUROC on the same cases: DeLong's variance, Obuchowski's by patient, and the mean over labels.

A case's structural component is, for a positive, the share of negatives that it outranks, and for a negative, the share
of positives that outrank it; ties count one half (DeLong et al., Biometrics 1988; 44: 837-845). All components come
from midranks at once (Sun & Xu, IEEE Signal Process Lett 2014; 21: 1389-93).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.clusters import patient_weight
from medharden.stats.difference import Difference, Floats, known_labels, patient_codes
from medharden.stats.influence import influence_limits, unseen_share, variance_of
from medharden.stats.numerics import normal_tail, two_sided_quantile

__all__ = ["FEWEST_PATIENTS", "auroc", "auroc_difference", "class_patients", "macro_auroc_difference"]

FEWEST_PATIENTS = 20  # of whom anything is shown, of an AUROC with and without positives; fewer describe

_NO_VARIANCE = (
    1e-24  # what rounding alone makes; one pair that changed among 100 000 positives and negatives makes more
)

Flags = npt.NDArray[np.bool_]


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve; a tie between a positive and a negative counts one half.

    Args:
        scores: (N,) finite; higher speaks for positive.
        positive: (N,) bool, at least one of each kind.

    Raises:
        RangeError: shapes that differ, a score that is not finite, or a class without a case.
    """
    above, _ = _components(*_checked(scores, positive))
    return float(above.mean())


def auroc_difference(
    scores_new: npt.ArrayLike,
    scores_old: npt.ArrayLike,
    positive: npt.ArrayLike,
    *,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """AUROC of the new scores minus that of the old, on the same cases.

    The standard error is that of DeLong et al. with one case a patient, and its extension to clustered data where
    patients repeat (Obuchowski, Biometrics 1997; 53: 567-578); a patient may bring positives, negatives or both. The
    limits are those of `influence_limits`, for DeLong's own err by up to three times alpha near 1.

    What no sample holds, a rare positive that drops below all negatives, moves the AUROC by its share among positives.
    None of n disjoint pairs of a positive and a negative of different patients did, so the limits keep away from the
    estimate by 1 - alpha^(1/n) at least. Equal scores have these limits.

    Args:
        scores_new: (N,) finite.
        scores_old: (N,) finite.
        positive: (N,) bool; positives of two patients or more, and negatives of two or more.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, scores that are not finite, or too few patients of a class.
    """
    labels = np.asarray(positive, dtype=np.bool_)
    codes, count = patient_codes(labels.size, patients)
    new, old = _checked(scores_new, labels), _checked(scores_old, labels)
    change, groups = _influence(new[0], old[0], labels, codes, count)
    name = "paired DeLong (DeLong 1988, Sun & Xu 2014)"
    if count < labels.size:
        name = "paired AUROC by patient (Obuchowski 1997)"
    together = count / (count - 1) / _corrections(labels, codes)
    unseen = unseen_share(_disjoint_pairs(labels, codes, count, level), level)
    return _difference(change, groups, together, unseen, level, (labels.size, count), name)


def class_patients(positive: npt.ArrayLike, patients: Sequence[str] | None = None) -> tuple[int, int]:
    """How many patients have positives, and how many have negatives; `FEWEST_PATIENTS` of each carry an AUROC.

    Args:
        positive: (N,) bool.
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: as many flags as patients were not given.
    """
    labels = np.asarray(positive, dtype=np.bool_)
    codes, _ = patient_codes(labels.size, patients)
    return int(np.unique(codes[labels]).size), int(np.unique(codes[~labels]).size)


def macro_auroc_difference(
    scores_new: npt.ArrayLike,
    scores_old: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    known: npt.ArrayLike | None = None,
    level: float = 0.95,
    patients: Sequence[str] | None = None,
) -> Difference:
    """Mean over labels of the AUROC of the new scores minus that of the old.

    A patient's influence is the sum over labels, positives and negatives of what the patient's structural components
    differ from their mean by; the variance is the sum of squared influences over patients, so correlation between
    labels and between a patient's cases is in it. With one label and one case a patient it is DeLong's.

    Args:
        scores_new: (N, L) finite.
        scores_old: (N, L) finite.
        labels: (N, L) bool; in each column positives of two patients or more, and negatives of two or more.
        known: (N, L) bool, which labels count; a column's AUROC is that of its cases that do. Null takes all.
        level: two-sided, in (0, 1).
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: shapes that differ, scores that are not finite, or too few patients of a class in a column.
    """
    new, old = np.asarray(scores_new, dtype=np.float64), np.asarray(scores_old, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.bool_)
    if truth.ndim != 2 or truth.size == 0 or new.shape != truth.shape or old.shape != truth.shape:
        raise RangeError(f"expected (N, L) scores and labels, got {new.shape}, {old.shape} and {truth.shape}")
    size, columns = truth.shape
    codes, count = patient_codes(size, patients)
    of_kind, change, unseen = [np.zeros(count), np.zeros(count)], 0.0, 0.0
    mask = known_labels(known, truth)
    for k in range(columns):
        rows = mask[:, k]
        kind, own = truth[rows, k], codes[rows]
        after, _ = _checked(new[rows, k], kind, column=k)
        before, _ = _checked(old[rows, k], kind, column=k)
        step, groups = _influence(after, before, kind, own, count, column=k)
        for whole, part in zip(of_kind, groups, strict=True):
            whole += part / columns
        change += step / columns
        unseen += unseen_share(_disjoint_pairs(kind, own, count, level), level) / columns
    name = f"mean AUROC of {columns} labels, influence summed by patient (after DeLong 1988)"
    return _difference(change, of_kind, 1.0, unseen, level, (size, count), name)


def _difference(
    change: float,
    groups: list[Floats],
    together: float,
    unseen: float,
    level: float,
    sizes: tuple[int, int],
    method: str,
) -> Difference:
    cases, patients = sizes
    z = two_sided_quantile(level)
    limits = influence_limits(change, groups, quantile=z, unseen=unseen, bound=1.0, together=together)
    variance = float(variance_of(groups, together))
    degenerate = variance <= _NO_VARIANCE
    error = 0.0 if degenerate else math.sqrt(variance)
    statistic = 0.0 if degenerate else change / error
    return Difference(
        estimate=change,
        interval=(float(limits[0]), float(limits[1])),
        level=level,
        statistic=statistic,
        p_value=2.0 * normal_tail(abs(statistic)),
        cases=cases,
        patients=patients,
        method=f"{method}; limits corrected for skewness",
        degenerate=degenerate,
        error=error,
        least=unseen,
    )


def _influence(
    new: Floats, old: Floats, positive: Flags, codes: npt.NDArray[np.intp], count: int, *, column: int | None = None
) -> tuple[float, list[Floats]]:
    """The change of AUROC, and each patient's influence on it through positives and through negatives.

    The influences carry the factor sqrt(I / (I - 1)) of the number I of patients with such cases.
    """
    parts = []
    both_new, both_old = _components(new, positive), _components(old, positive)
    change = float(both_new[0].mean() - both_old[0].mean())
    for after, before, kind in zip(both_new, both_old, (positive, ~positive), strict=True):
        owners = np.unique(codes[kind]).size
        if owners < 2:
            raise RangeError(f"positives and negatives of two patients each are needed{_of(column)}")
        excess = after - before - change
        sums = np.bincount(codes[kind], weights=excess, minlength=count) / excess.size
        parts.append(sums * math.sqrt(owners / (owners - 1)))
    return change, parts


def _corrections(positive: Flags, codes: npt.NDArray[np.intp]) -> float:
    """The factor that the product of a patient's two influences carries."""
    owners = [np.unique(codes[kind]).size for kind in (positive, ~positive)]
    return math.sqrt(math.prod(n / (n - 1) for n in owners))


def _disjoint_pairs(positive: Flags, codes: npt.NDArray[np.intp], count: int, level: float) -> float:
    """How many pairs of a positive and a negative can be made with no patient in two pairs or twice in one.

    Where patients have unequally many cases, as many pairs of patients as these are worth (`patient_weight`).
    """
    every = np.ones_like(positive)
    worth = []
    for kind in (positive, ~positive, every):
        sizes = np.bincount(codes[kind], minlength=count)
        worth.append(int(kind.sum()) / patient_weight(sizes[sizes > 0], level=level))
    return min(worth[0], worth[1], worth[2] / 2.0)


def _components(scores: Floats, positive: Flags) -> tuple[Floats, Floats]:
    """The structural components of positives and of negatives; each mean is the AUROC."""
    ranks = _midranks(scores)
    above, below = scores[positive], scores[~positive]
    of_positives = (ranks[positive] - _midranks(above)) / below.size
    of_negatives = 1.0 - (ranks[~positive] - _midranks(below)) / above.size
    return of_positives, of_negatives


def _midranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]
    return ranks


def _checked(scores: npt.ArrayLike, positive: npt.ArrayLike, *, column: int | None = None) -> tuple[Floats, Flags]:
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    if y.ndim != 1 or s.shape != y.shape or not np.all(np.isfinite(s)):
        raise RangeError(f"expected one finite score a case, got shapes {s.shape} and {y.shape}")
    if y.all() or not y.any():
        raise RangeError(f"AUROC needs a positive and a negative case{_of(column)}, got {int(y.sum())} of {y.size}")
    return s, y


def _of(column: int | None) -> str:
    return "" if column is None else f" of label {column}"
