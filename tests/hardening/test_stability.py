"""The same protocol under other seeds: a spread on validation, no choice, and nothing of the release moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import assert_clear, medharden
from released_runs import Released, copied, released
from tiny import ARCH

from medharden.audit import digest_file, read_log, read_record, write_record
from medharden.errors import RunError
from medharden.hardening import harden, measure_stability
from medharden.models import load_classifier, load_hardened
from medharden.record import HardenRecord, StabilityRecord
from medharden.reporting import render
from medharden.verifying import verify

TRAINED: list[HardenRecord] = []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released(tmp_path_factory.mktemp("made"), branch="norm")


@pytest.fixture(scope="module")
def measured(made: Released, tmp_path_factory: pytest.TempPathFactory) -> tuple[Released, StabilityRecord]:
    again = replace(made, run=copied(made, tmp_path_factory.mktemp("measured")))
    original = load_classifier(made.model, arch=ARCH)

    def harden_and_note(*given: Any, **options: Any) -> HardenRecord:
        TRAINED.append(harden(*given, **options))
        return TRAINED[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medharden.hardening.stability.harden", harden_and_note)
        return again, measure_stability(original, made.cohort, made.protocol, again.run, seeds=3, arch=ARCH)


def test_the_seeds_are_those_after_the_protocols_and_the_release_is_its_own(
    made: Released, measured: tuple[Released, StabilityRecord]
) -> None:
    again, record = measured
    assert [one.seed for one in record.seeds] == [made.protocol.seed + k for k in range(3)]
    assert [one.released for one in record.seeds] == [True, False, False]
    for name in ("hardened.safetensors", "harden.json", "evaluation.json", "gate.json"):
        assert digest_file(again.run / name) == digest_file(made.run / name), name
    own = read_record(again.run / "harden.json", HardenRecord)
    assert (record.hardened, record.seeds[0].weight) == (own.hardened, own.fusion.weight)
    assert len({own.hardened, *(one.hardened for one in TRAINED)}) == 3, "each seed trains weights of its own"


@torch.no_grad()
def test_the_figures_are_of_validation_and_those_of_the_composite(measured: tuple[Released, StabilityRecord]) -> None:
    again, record = measured
    inputs, labels = again.cohort.batch(again.cohort.indices("val"))
    before = load_classifier(again.model, arch=ARCH)(inputs).argmax(1) == labels
    after = load_hardened(again.run, arch=ARCH)(inputs).argmax(1) == labels
    own = record.seeds[0]
    assert (record.cases, own.clean_correct) == (len(labels), int(after.sum()))
    assert (own.gained, own.lost) == (int((after & ~before).sum()), int((before & ~after).sum()))
    assert 0 <= own.robust <= record.attacked <= record.cases
    events = [entry.event for entry in read_log(again.run).entries]
    assert events.count("evaluate.test_split_opened") == 1
    assert events[-3:] == ["stability.started", "stability.recorded", "stability.finished"]


def test_the_report_has_the_spread_and_verification_holds_the_record(
    measured: tuple[Released, StabilityRecord], tmp_path: Path
) -> None:
    again, record = measured
    run = copied(again, tmp_path)
    render(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Stability under other seeds" in page
    assert f"{again.protocol.seed} (released)" in page
    shares = [one.clean_correct / record.cases for one in record.seeds]
    changes = [100 * (one.gained - one.lost) / record.cases for one in record.seeds]
    assert f"standard deviation {np.std(changes, ddof=1):.2f}" in page
    assert min(shares) <= max(shares)
    assert not verify(run).faults
    write_record(run / "stability.json", replace(record, cases=record.cases + 1))
    assert "stability.json" in {fault.file for fault in verify(run).faults}


def test_seeds_that_cannot_be_and_a_run_of_another_protocol_are_refused(made: Released) -> None:
    original = load_classifier(made.model, arch=ARCH)
    for seeds in (1, 21):
        with pytest.raises(RunError, match="2 to 20 seeds"):
            measure_stability(original, made.cohort, made.protocol, made.run, seeds=seeds, arch=ARCH)
    other = made.protocol.model_copy(update={"seed": 5})
    with pytest.raises(RunError, match="another protocol"):
        measure_stability(original, made.cohort, other, made.run, seeds=2, arch=ARCH)


def test_the_command_measures_once_and_says_the_spread(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    options = (made.model, "--data", made.archive, "--protocol", run / "protocol.yaml", "--out", run, "--arch", ARCH)
    done = medharden("harden", *options, "--seeds", 2, cwd=tmp_path)
    assert_clear(done, 0, "2 seeds are right on", "released is the protocol's own seed")
    assert len(read_record(run / "stability.json", StabilityRecord).seeds) == 2
    assert_clear(medharden("harden", *options, "--seeds", 2, cwd=tmp_path), 0, "measured earlier")
