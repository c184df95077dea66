"""Published examples that several tests use."""

from __future__ import annotations

import numpy as np

# 113 patients with aneurysmal subarachnoid haemorrhage (Turck et al., Intensive Care Med 2010; 36: 107-115; `aSAH` of
# the R package pROC): poor outcome, WFNS grade, and the rank of S100b among its distinct values. AUROC needs no more.
_POOR = (
    "00001101001011001011101000000000100110110000000001100010001010011101101111000110100000010000000000001111110001000"
)
_WFNS = (
    "11113254125255125225211112121134214541425511241125521251222151125214524414121421232421451154221113125225552445111"
)
_S100B = (
    "10 11 7 1 10 7 35 13 15 7 9 7 32 43 1 5 37 1 4 26 6 6 4 8 4 14 4 8 10 16 2 13 30 11 27 28 36 6 48 20 "
    "38 34 13 4 31 33 8 5 6 47 39 5 3 10 49 7 11 12 4 3 45 2 6 24 0 6 1 18 42 6 22 43 5 21 5 13 6 10 7 5 "
    "8 26 8 23 4 7 25 17 4 2 19 29 7 12 5 11 7 4 1 16 40 11 41 25 46 44 12 35 14 32 12 38 36 "
)

# Psychiatrists and their patients: Donner & Petryshen 1989, in Eliasziw & Donner 1991.
GAINED = [0, 1, 1, 1, 0, 3, 3, 3, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0]
LOST = [4, 2, 3, 2, 1, 3, 0, 2, 2, 4, 2, 4, 3, 2, 1, 3, 1, 2, 0, 0, 0, 2, 1, 2, 2, 0, 0, 1, 1]
SIZES = [7, 6, 7, 6, 4, 6, 5, 8, 4, 7, 3, 6, 7, 6, 5, 4, 6, 5, 4, 3, 5, 4, 4, 2, 3, 2, 2, 3, 1]


def asah() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """WFNS grade, rank of S100b, and whether the outcome was poor, of 113 patients."""
    return np.array(list(_WFNS), float), np.array(_S100B.split(), float), np.array(list(_POOR)) == "1"


def psychiatry() -> tuple[np.ndarray, list[str]]:
    """1 gained, -1 lost, 0 neither, of 135 cases; and whose they are."""
    values = [
        value
        for gained, lost, size in zip(GAINED, LOST, SIZES, strict=True)
        for value in [1] * gained + [-1] * lost + [0] * (size - gained - lost)
    ]
    return np.array(values), [f"p{k}" for k, size in enumerate(SIZES) for _ in range(size)]
