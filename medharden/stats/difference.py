"""The outcome of comparing two models on the same cases, and what may be said where nothing varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError

__all__ = ["Difference", "Floats", "flags", "known_labels", "patient_codes"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """New minus old, on the same cases.

    Attributes:
        estimate: the observed difference.
        interval: its lower and upper limit at `level`.
        level: two-sided.
        statistic: of the hypothesis of no difference; 0 where `degenerate`, unless the method has a score test. Of a
            mean or an AUROC it is estimate / error as published, without the limits' corrections.
        p_value: two-sided; 1 where the statistic is 0.
        cases, patients: how many.
        method: the interval's name and source.
        degenerate: no variation was observed. The interval then rests on the number of patients alone: it never shrinks
            to a point, and identical answers on few patients show little.
        error: standard error by patient; null where the method has none.
        least: how far the limits keep away from an estimate of 0 at least, for patients unlike all observed; 0 where
            the method has no such part.
    """

    estimate: float
    interval: tuple[float, float]
    level: float
    statistic: float
    p_value: float
    cases: int
    patients: int
    method: str
    degenerate: bool = False
    error: float | None = None
    least: float = 0.0


def patient_codes(cases: int, patients: Sequence[str] | None) -> tuple[npt.NDArray[np.intp], int]:
    """Each case's patient as a number, and how many patients there are.

    Args:
        cases: N.
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: as many patients as cases were not given.
    """
    if patients is None:
        return np.arange(cases), cases
    if cases != len(patients):
        raise RangeError(f"expected one patient a case, got {len(patients)} patients for {cases} cases")
    names, codes = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    return codes, names.size


def known_labels(known: npt.ArrayLike | None, labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which labels count, as the labels' shape; all where nothing is said.

    Raises:
        RangeError: a flag a label was not given.
    """
    if known is None:
        return np.ones_like(labels)
    mask = np.asarray(known, dtype=np.bool_)
    if mask.shape != labels.shape:
        raise RangeError(f"expected a flag for each label, got {mask.shape} flags for labels {labels.shape}")
    return mask


def flags(gained: npt.ArrayLike, lost: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Both as (N,) bool.

    Raises:
        RangeError: shapes that differ, or a case both gained and lost.
    """
    b, c = np.asarray(gained, dtype=np.bool_), np.asarray(lost, dtype=np.bool_)
    if b.ndim != 1 or b.shape != c.shape or bool(np.any(b & c)):
        raise RangeError(f"expected two flags a case that are never both true, got shapes {b.shape} and {c.shape}")
    return b, c
