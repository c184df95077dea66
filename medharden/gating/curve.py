"""Whether the curve of accuracy over budgets, where there is one, is of this suite and adds up to the cases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medharden.gating.records import COMPARED
from medharden.record import CURVE_RATIOS, CaseTable, Evaluation

__all__ = ["curve_problems"]

_VALUES = (-1.0, 0.0, *CURVE_RATIOS)


def curve_problems(evaluation: Evaluation, cases: CaseTable) -> Iterator[str]:
    """One sentence for each way in which the curve can't be; it decides nothing, yet stands beside the verdict."""
    if evaluation.artefact:
        return
    counted = {(p.subject, p.ratio): (p.cases, p.standing) for p in evaluation.curve}
    found: dict[tuple[str, float], tuple[int, int]] = {}
    for name in COMPARED:
        table = cases.subjects[name]
        if table.withstands is None:
            continue
        if table.withstands.shape != (len(cases.case),) or not np.isin(table.withstands, _VALUES).all():
            yield f"cases.parquet, {name}: what a case withstands is no budget of the curve"
            return
        held = table.withstands[cases.attacked]
        if (
            not np.array_equal(held >= 1, table.robust[cases.attacked])
            or (table.withstands[~cases.attacked] >= 0).any()
        ):
            yield f"cases.parquet, {name}: a case stands on the curve that fell to the suite, or was not attacked"
        if not np.array_equal(held >= 0, cases.right(name)[cases.attacked]):
            yield f"cases.parquet, {name}: a case stands on the curve that was wrong when clean, or the other way"
        found |= {(name, ratio): (len(held), int((held >= ratio).sum())) for ratio in (0.0, *CURVE_RATIOS)}
    if counted != found:
        yield "evaluation.json has other points of accuracy over budgets than cases.parquet adds up to"
