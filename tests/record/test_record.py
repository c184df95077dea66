"""What records can say of themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gating_factory import ENVIRONMENT, records

from medharden.record import AttackedCase, AttackRecord, EpochRecord, present


def test_an_evaluation_gives_shares_by_subject_and_names_no_other() -> None:
    evaluation = records(400).evaluation
    composite = evaluation.subject("composite")
    assert (composite.clean_accuracy, composite.robust_accuracy) == (0.95, 0.6)
    assert evaluation.subject("original").robust_accuracy == 0.15
    with pytest.raises(KeyError, match="branch"):
        evaluation.subject("branch")


def test_hardening_s_cost_counts_probes_and_calibration_too_and_is_not_guessed_where_nothing_was_timed() -> None:
    harden = records(400).harden
    harden = replace(harden, epochs=(EpochRecord(0, 1, 1, 1, 1, 1, 1, 0, 0, 9, 1, True),) * 2)
    timed = replace(harden.cost, train_seconds=18, probe_seconds=2, calibration_seconds=4, epoch_seconds=9)
    known, unknown = (replace(harden, cost=replace(timed, clean_epoch_seconds=s)) for s in (10.0, 0.0))
    assert (known.epoch_ratio, known.whole_ratio) == (0.9, 1.2)
    assert (unknown.epoch_ratio, unknown.whole_ratio) == (None, None)


def test_a_label_says_which_classes_or_findings_are_there() -> None:
    assert present(3) == (3,)
    assert present((0, 2)) == (0, 2)
    assert present(()) == ()


def test_an_attack_record_counts_what_stayed_right_before_search_and_file() -> None:
    cases = tuple(
        AttackedCase("c", "p", *outcome, "", 2, 0, 0, 0.0, "", "")
        for outcome in ((True, True, True), (True, True, False), (True, False, False), (False, False, False))
    )
    words = ("0" * 64, "1" * 64, "composite", "test", ("a", "b"), "linf", "argmax")
    record = AttackRecord(*words, cases, (), ENVIRONMENT, "2026-01-01", "2026-01-01")
    assert (record.clean_correct, record.search_correct, record.file_correct) == (3, 2, 1)
