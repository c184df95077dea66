"""The patient as the unit: standard errors by patient, the design effect, and effective cases.

Several cases of one patient tell less than as many patients would. Where any patient repeats, intervals are taken on
n / deff effective cases with the counts scaled alike (Rao & Scott, Biometrics 1992; 48: 577-585).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError

__all__ = ["cluster_standard_error", "design_effect", "effective_cases", "independent_standard_error"]


def independent_standard_error(values: npt.ArrayLike) -> float:
    """Standard error of the mean as if all cases were independent: sqrt(sum (x - mean)^2) / N.

    Args:
        values: (N,) one outcome a case: 0 or 1, or -1, 0, 1 for a paired difference; N of 1 or more.
    """
    x = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.sum((x - x.mean()) ** 2)) / x.size)


def cluster_standard_error(values: npt.ArrayLike, patients: Sequence[str]) -> float:
    """Standard error of the mean with patients as independent units.

    sqrt(K / (K - 1) * sum_k e_k^2) / N, where e_k is the sum of x - mean over patient k's cases and K the number of
    patients: the linearised ratio estimator (Obuchowski, Stat Med 1998; 17: 1495-1507).

    Args:
        values: (N,) one outcome a case.
        patients: (N,) whose case it is.

    Raises:
        RangeError: fewer than two patients, or as many values as patients were not given.
    """
    x = np.asarray(values, dtype=np.float64)
    codes, count = _codes(x, patients)
    if count < 2:
        raise RangeError(f"a standard error by patient needs two patients at least, got {count}")
    sums = np.bincount(codes, weights=x - x.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * float(np.sum(sums**2))) / x.size)


def design_effect(values: npt.ArrayLike, patients: Sequence[str]) -> float:
    """How many cases weigh as much as one independent case: (cluster SE / independent SE)^2, at least 1.

    It is 1 where no patient repeats. Where it can't be estimated (all outcomes equal, as with no discordant case, or
    a single patient) it is taken at its worst: cases divided by patients, so each patient counts once.

    Args:
        values: (N,) one outcome a case; N of 1 or more.
        patients: (N,) whose case it is.

    Raises:
        RangeError: as many values as patients were not given.
    """
    x = np.asarray(values, dtype=np.float64)
    _, count = _codes(x, patients)
    if count == x.size:
        return 1.0
    independent = independent_standard_error(x)
    if independent == 0.0 or count < 2:
        return x.size / count
    return max(1.0, (cluster_standard_error(x, patients) / independent) ** 2)


def effective_cases(values: npt.ArrayLike, patients: Sequence[str] | None) -> float:
    """Cases divided by the design effect; all cases where `patients` is null, 0 where there are none.

    Args:
        values: (N,) one outcome a case.
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: as many values as patients were not given.
    """
    x = np.asarray(values, dtype=np.float64)
    if patients is None or x.size == 0:
        return float(x.size)
    return x.size / design_effect(x, patients)


def _codes(values: npt.NDArray[np.float64], patients: Sequence[str]) -> tuple[npt.NDArray[np.intp], int]:
    if values.ndim != 1 or values.size != len(patients):
        raise RangeError(f"expected one patient a case, got {len(patients)} patients for shape {values.shape}")
    names, codes = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    return codes, names.size
