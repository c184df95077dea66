"""The patient as the unit: standard errors by patient, the design effect, and effective cases.

Several cases of one patient tell less than as many patients would. Where any patient repeats, paired intervals are
taken on n / deff effective cases with the counts scaled alike (Rao & Scott, Biometrics 1992; 48: 577-585).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from medharden.errors import RangeError
from medharden.stats.difference import Floats, patient_codes
from medharden.stats.numerics import normal_tail, two_sided_quantile

__all__ = [
    "cluster_standard_error",
    "design_effect",
    "design_effects",
    "effective_cases",
    "independent_standard_error",
    "patient_weight",
    "scaled_counts",
]

_CAP, _CAP_GROWTH = 0.65, 0.25  # of a patient's gains; chosen with the error rates of docs/validation-of-statistics.md


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


def patient_weight(sizes: npt.ArrayLike, *, level: float = 0.95) -> float:
    """How many cases a patient brings, as a limit has to reckon with: n_k where all have n_k, 1 where none repeats.

    Where patients have unequally many cases, those with many may be of a kind, and lose all of them. None of the t
    largest was seen to, so a share of 1 - alpha^(1/t) of their kind may, with s_t of all cases. w = N / K is that of K
    patients with equally many cases who could hide as much: 1 - alpha^(1/K) = max over t of s_t (1 - alpha^(1/t)).

    Args:
        sizes: (K,) cases of each patient, of 1 or more.
        level: two-sided, in (0, 1); alpha = (1 - level) / 2.
    """
    n = np.sort(np.asarray(sizes, dtype=np.float64))[::-1]
    if n[0] == n[-1]:
        return float(n[0])
    log_alpha = math.log((1.0 - level) / 2.0)
    hidden = np.cumsum(n) / n.sum() * -np.expm1(log_alpha / np.arange(1, n.size + 1))
    return float(n.sum() * np.log1p(-hidden.max()) / log_alpha)


def design_effect(values: npt.ArrayLike, patients: Sequence[str] | None, *, level: float = 0.95) -> float:
    """How many cases weigh as much as one independent case, for the lower limit of a paired difference.

    The plain estimate, (cluster SE / independent SE)^2, rests on the patients that vary. Where these are few it misses
    the rare patient who would lose every case, and the test passes too often. So the squares under both roots, N^2
    SE^2, are taken as if there were z^2 / 2 patients more, of w cases each (`patient_weight`), half of them gained and
    half lost with all their cases: the pseudo-observations of Agresti & Coull (Am Stat 1998; 52: 119-126), by patient.
    With s = 1 + mean^2 and a = z^2 / 2 this adds a w^2 s to the one and a w s to the other.

    A patient's gains beyond h count in proportion, not squared, h^2 = (.65 w)^2 + sum min(e_k, 0)^2 / (2 z)^2: else a
    patient who gains with all cases would widen the interval by more than the gain, and to lose it would help. The
    result is 1 at least, and w where nothing varies: N / w effective cases, the number of patients if all have equally
    many. For the upper limit mirror the values. Error rates are in `docs/validation-of-statistics.md`.

    Args:
        values: (N,) 1, 0 or -1 a case, N of 1 or more.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        level: two-sided, in (0, 1); gives z.

    Raises:
        RangeError: as many values as patients were not given, or a level outside (0, 1).
    """
    x, codes, count = _coded(values, patients)
    z = two_sided_quantile(level)
    if count == x.size:
        return 1.0
    sizes = np.bincount(codes)
    if count == 1:
        return patient_weight(sizes, level=level)
    sums = np.bincount(codes, weights=x, minlength=count).astype(np.float64)
    return float(design_effects(sums, float(np.sum(x**2)), sizes, z))


def design_effects(sums: Floats, squares: float | Floats, sizes: npt.ArrayLike, z: float) -> Floats:
    """`design_effect` of many samples of the same patients.

    Args:
        sums: (..., K) of each patient's values.
        squares: (...) sum of all squared values.
        sizes: (K,) cases of each patient.
        z: above 0.

    Returns:
        (...) of 1 or more.
    """
    n = np.asarray(sizes, dtype=np.float64)
    w, more = patient_weight(n, level=1.0 - 2.0 * normal_tail(z)), z * z / 2.0
    mean = sums.sum(axis=-1) / n.sum()
    excess = sums - n * mean[..., None]
    losses = np.sum(np.minimum(excess, 0.0) ** 2, axis=-1)
    cap = np.sqrt((_CAP * w) ** 2 + _CAP_GROWTH * losses / (z * z))[..., None]
    by_patient = np.where(excess > cap, 2.0 * cap * excess - cap**2, excess**2).sum(axis=-1)
    by_case = np.maximum(squares - n.sum() * mean**2, 0.0)
    spread = 1.0 + mean**2
    effects: Floats = np.maximum((by_patient + more * w * w * spread) / (by_case + more * w * spread), 1.0)
    return effects


def effective_cases(values: npt.ArrayLike, patients: Sequence[str] | None, *, level: float = 0.95) -> float:
    """Cases divided by the design effect; all cases where no patient repeats, 0 where there are none.

    Args:
        values: (N,) 1, 0 or -1 a case.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        level: two-sided, in (0, 1).

    Raises:
        RangeError: as many values as patients were not given, or a level outside (0, 1).
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return 0.0
    return x.size / design_effect(x, patients, level=level)


def scaled_counts(
    values: npt.ArrayLike, patients: Sequence[str] | None, *, level: float, lower: bool
) -> tuple[float, float, float]:
    """Gained, lost and all cases on effective cases, as the lower or the upper limit of a paired difference takes them.

    Args:
        values: (N,) 1, 0 or -1 a case.
        patients: (N,) whose case it is; null where each case is a patient of its own.
        level: two-sided, in (0, 1).
        lower: whether for the lower limit; the upper one sees the mirrored values.
    """
    x = np.asarray(values, dtype=np.float64)
    effective = effective_cases(x if lower else -x, patients, level=level)
    scale = effective / x.size if x.size else 0.0
    return float((x > 0).sum()) * scale, float((x < 0).sum()) * scale, effective


def _coded(values: npt.ArrayLike, patients: Sequence[str] | None) -> tuple[Floats, npt.NDArray[np.intp], int]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise RangeError(f"expected one outcome a case, got shape {x.shape}")
    codes, count = patient_codes(x.size, patients)
    return x, codes, count
