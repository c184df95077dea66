"""What records can say of themselves."""

from __future__ import annotations

import pytest
from gating_factory import records


def test_an_evaluation_gives_shares_by_subject_and_names_no_other() -> None:
    evaluation = records(400).evaluation
    composite = evaluation.subject("composite")
    assert (composite.clean_accuracy, composite.robust_accuracy) == (0.95, 0.6)
    assert evaluation.subject("original").robust_accuracy == 0.15
    with pytest.raises(KeyError, match="branch"):
        evaluation.subject("branch")
