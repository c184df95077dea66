"""Several processes harden and evaluate as one would, and write one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import environment, medharden
from tiny import ARCH, PROTOCOL, tiny_model, write_archive
from together import apart, ended, started

from medharden.audit import RunFiles, read_record
from medharden.record import Evaluation, HardenRecord

pytestmark = pytest.mark.slow

SETTINGS = "epochs: 4, min_steps: 1, batch_size: 25, learning_rate: 0.003, probe_cases: 60, clean_share: 0.1, shift: 1"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """`harden` on small images, without the run directory."""
    folder = tmp_path_factory.mktemp("processes")
    write_archive(folder / "tiny.npz", sizes=(200, 83, 61))
    tiny_model(folder)
    given = PROTOCOL.replace("epochs: 20, min_steps: 1, batch_size: 25, learning_rate: 0.01, probe_cases: 60", SETTINGS)
    assert given != PROTOCOL
    (folder / "tiny.yaml").write_text(given)
    chosen = ["--data", folder / "tiny.npz", "--protocol", folder / "tiny.yaml", "--arch", ARCH, "--device", "cpu"]
    return ["harden", folder / "model.pt", *chosen, "--pictures", "--out"]


@pytest.fixture(scope="module")
def alone(words: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    done = medharden(*words, "run", cwd=folder)
    assert done.returncode in (0, 3, 4), done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def pair(words: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    first, second = ended(started(["-m", "medharden", *words, "run"], 2, folder))
    assert first.returncode in (0, 3, 4), first.stderr + second.stderr
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert "processes: 2" in first.stdout
    return folder / "run"


def test_two_processes_take_the_steps_of_one(alone: Path, pair: Path) -> None:
    assert apart(alone, pair) < 1e-4
    one, two = (read_record(run / "harden.json", HardenRecord) for run in (alone, pair))
    assert [e.val_robust for e in one.epochs] == [e.val_robust for e in two.epochs]
    assert [e.loss for e in one.epochs] == pytest.approx([e.loss for e in two.epochs], rel=1e-4)
    assert one.fusion.weight == two.fusion.weight
    assert [p.robust for p in one.fusion.frontier] == [p.robust for p in two.fusion.frontier]
    assert (one.environment.processes, two.environment.processes) == (1, 2)
    assert two.clean_logits_identical


def test_two_processes_see_each_test_case_once_as_one_does(alone: Path, pair: Path) -> None:
    one, two = (RunFiles(run).cases() for run in (alone, pair))
    assert (one.case, one.patient) == (two.case, two.patient)
    assert np.array_equal(one.label, two.label)
    assert np.array_equal(one.attacked, two.attacked)
    for name, here in one.subjects.items():
        there = two.subjects[name]
        assert np.array_equal(here.predicted, there.predicted)
        assert here.won_by == there.won_by
        np.testing.assert_allclose(here.probabilities, there.probabilities, atol=1e-4)
    first, second = (read_record(run / "evaluation.json", Evaluation) for run in (alone, pair))
    assert [(s.name, s.n, s.attacked, s.robust_correct) for s in first.subjects] == [
        (s.name, s.n, s.attacked, s.robust_correct) for s in second.subjects
    ]
    for here, there in zip(first.subjects, second.subjects, strict=True):
        assert [(a.name, a.cases, a.wins) for a in here.attacks] == [(a.name, a.cases, a.wins) for a in there.attacks]
    assert first.sanity == second.sanity
    assert first.identity == second.identity
    assert [f.message for f in first.findings] == [f.message for f in second.findings]


def test_two_processes_write_one_run_whose_log_holds_each_event_once(alone: Path, pair: Path) -> None:
    one, two = ((run / "audit.jsonl").read_text().splitlines() for run in (alone, pair))
    one, two = ([json.loads(line)["event"] for line in lines] for lines in (one, two))
    assert one == two
    assert sorted(p.name for p in alone.iterdir()) == sorted(p.name for p in pair.iterdir())
    said = medharden("verify", pair, "--json", cwd=pair.parent)
    assert said.returncode == 0, said.stdout + said.stderr


def test_where_a_process_dies_all_stop_and_one_goes_on_to_the_same_weights(
    words: list[object], alone: Path, tmp_path: Path
) -> None:
    processes = started(["-m", "medharden", *words, "run", "--checkpoint-minutes", "0"], 2, tmp_path)
    while not (tmp_path / "run" / "harden.checkpoint").exists():
        assert processes[0].poll() is None, processes[0].communicate()
    processes[1].kill()
    first, _ = ended(processes)
    assert first.returncode == 1
    assert "another of the 2 processes ended" in first.stderr
    assert "Traceback" not in first.stderr
    assert not (tmp_path / "run" / "harden.json").exists()
    done = medharden(*words, "run", cwd=tmp_path)
    assert done.returncode in (0, 3, 4), done.stderr
    record = read_record(tmp_path / "run" / "harden.json", HardenRecord)
    assert "hardening.processes_changed" in [f.code for f in record.findings]
    assert "hardening.begun_anew" not in [f.code for f in record.findings]
    assert apart(alone, tmp_path / "run") < 1e-4


def test_torchrun_starts_it_and_another_command_runs_once(pair: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "medharden", "report", str(pair), "--out", str(pair.parent / "report")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report.html") == 1
