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
from medharden.stats.difference import Floats, patient_codes

__all__ = ["cluster_standard_error", "design_effect", "effective_cases", "independent_standard_error"]


def independent_standard_error(values: npt.ArrayLike) -> float:
    """Standard error of the mean as if all cases were independent: sqrt(sum (x - mean)^2) / N.

    Args:
        values: (N,) one outcome a case: 0 or 1, or -1, 0, 1 for a paired difference; N of 1 or more.
    """
    x = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.sum((x - x.mean()) ** 2)) / x.size)


def cluster_standard_error(values: npt.ArrayLike, patients: Sequence[str] | None) -> float:
    """Standard error of the mean with patients as independent units.

    sqrt(K / (K - 1) * sum_k e_k^2) / N, where e_k is the sum of x - mean over patient k's cases and K the number of
    patients: the linearised ratio estimator (Obuchowski, Stat Med 1998; 17: 1495-1507).

    Args:
        values: (N,) one outcome a case.
        patients: (N,) whose case it is; null where each case is a patient of its own.

    Raises:
        RangeError: fewer than two patients, or as many values as patients were not given.
    """
    x, codes, count = _coded(values, patients)
    if count < 2:
        raise RangeError(f"a standard error by patient needs two patients at least, got {count}")
    sums = np.bincount(codes, weights=x - x.mean(), minlength=count)
    return float(math.sqrt(count / (count - 1) * float(np.sum(sums**2))) / x.size)


def design_effect(values: npt.ArrayLike, patients: Sequence[str] | None, *, lowest: float = -1.0) -> float:
    """How many cases weigh as much as one independent case, at least 1; 1 where no patient repeats.

    The estimate (cluster SE / independent SE)^2 rests on the patients that vary. Where these are few it misses the rare
    patient who would lose every case, and the test passes too often. So the squares under both roots, N^2 SE^2, are
    taken as if there were two patients more, of m = sum n_k^2 / N cases each, all of one's cases at the highest outcome
    and all of the other's at the lowest (the pseudo-observations of Agresti & Min, Stat Med 2005; 24: 729-740, taken by
    patient): m^2 s is added to the one and m s to the other, s = (1 - mean)^2 + (lowest - mean)^2. The larger of both
    estimates counts. Where nothing varies this leaves m: N / m effective cases, the number of patients if all have
    equally many. Its error rates are in `docs/validation-of-statistics.md`.

    Args:
        values: (N,) one outcome a case, N of 1 or more; 1 at most.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        lowest: smallest outcome there can be: -1 for a paired difference, 0 for one proportion.

    Raises:
        RangeError: as many values as patients were not given.
    """
    x, codes, count = _coded(values, patients)
    if count == x.size:
        return 1.0
    weight = float(np.sum(np.bincount(codes) ** 2)) / x.size
    if count < 2:
        return weight
    by_patient = (x.size * cluster_standard_error(x, patients)) ** 2
    by_case = (x.size * independent_standard_error(x)) ** 2
    extremes = (1.0 - float(x.mean())) ** 2 + (lowest - float(x.mean())) ** 2
    observed = by_patient / by_case if by_case > 0.0 else 1.0
    return max(1.0, observed, (by_patient + weight**2 * extremes) / (by_case + weight * extremes))


def effective_cases(values: npt.ArrayLike, patients: Sequence[str] | None, *, lowest: float = -1.0) -> float:
    """Cases divided by the design effect; all cases where no patient repeats, 0 where there are none.

    Args:
        values: (N,) one outcome a case.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        lowest: smallest outcome there can be: -1 for a paired difference, 0 for one proportion.

    Raises:
        RangeError: as many values as patients were not given.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return 0.0
    return x.size / design_effect(x, patients, lowest=lowest)


def _coded(values: npt.ArrayLike, patients: Sequence[str] | None) -> tuple[Floats, npt.NDArray[np.intp], int]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise RangeError(f"expected one outcome a case, got shape {x.shape}")
    codes, count = patient_codes(x.size, patients)
    return x, codes, count
