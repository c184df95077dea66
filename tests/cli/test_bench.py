"""`bench` and `harden --dry-run`: measured on a few cases, nothing is written and nothing decided."""

from __future__ import annotations

import importlib.util
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from command import assert_clear, medharden
from data_helpers import KEY, class_folders, manifest, png, protocol
from tiny import ARCH, PROTOCOL, tiny_cohort, tiny_model, tiny_protocol, write_archive
from torch import Tensor

from medharden.cli.doctor import seen
from medharden.data.sampled import sample_cohort
from medharden.errors import DataError
from medharden.hardening import clean, measuring
from medharden.hardening.measuring import quick_costs, step_costs
from medharden.hardening.schedule import epochs_and_batches
from medharden.protocol import Hardening, Splits


def test_a_dry_run_says_what_would_be_done_and_takes_and_writes_nothing(tmp_path: Path) -> None:
    write_archive(tmp_path / "tiny.npz")
    tiny_model(tmp_path)
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    before = sorted(path.name for path in tmp_path.iterdir())
    given = ("harden", "model.pt", "--arch", ARCH, "--data", "tiny.npz", "--protocol", "tiny.yaml", "--dry-run")
    done = medharden(*given, cwd=tmp_path)
    assert_clear(done, 0, "about 400 cases (train 200, val 80, test 120)", "for 20 epochs of 8 steps", "all, at most")
    assert "nothing was written" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    said = json.loads(medharden(*given, "--json", cwd=tmp_path).stdout)
    assert said["cases"] == {"train": 200, "val": 80, "test": 120}
    assert all(rate > 0 for rate in said["cases_a_second"].values())
    assert said["bytes"]["store"] == 400 * 16 * 16 * 4
    attacked = 20  # of the 60 that the protocol asks for: what probes after every second of twenty epochs have pays for
    assert said["bytes"]["perturbations"] == 2 * (200 + attacked) * (16 * 16 + 32)
    seconds = said["seconds"]
    assert seconds["all"] == pytest.approx(sum(v for k, v in seconds.items() if k != "all"))


def test_the_sample_comes_from_all_over_the_source_and_stands_for_its_size(tmp_path: Path) -> None:
    root = class_folders(tmp_path, 100)
    for n in range(0, 100, 2):
        (root / "cat" / f"{n}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    wanted = protocol(splits=Splits(train=0.5, val=0.25, test=0.25), hardening=Hardening(batch_size=8))
    sample = sample_cohort(root, wanted, key=KEY, most=40)
    assert sample.tried == 40
    assert 5 <= sample.unusable <= 15
    assert set(sample.cohort.labels(sample.cohort.indices("train")).tolist()) == {0, 1}
    assert [len(sample.cohort.indices(split)) for split in ("train", "val", "test")] == [24, 8, 8]
    usable = 200 * (1 - sample.unusable / 40)
    assert sum(sample.cases.values()) == pytest.approx(usable, abs=3)
    assert sample.cases["train"] == pytest.approx(usable / 2, abs=2)


def test_a_source_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        png(tmp_path / name / "0.png", 1).write_bytes(b"")
    with pytest.raises(DataError, match="none of the 2 cases that were tried"):
        sample_cohort(tmp_path, protocol(), key=KEY)


def test_a_source_that_lists_problems_alone_is_refused(tmp_path: Path) -> None:
    rows = [{"path": f"gone-{n}.png", "label": "ab"[n % 2]} for n in range(4)]
    with pytest.raises(DataError):
        sample_cohort(manifest(tmp_path, rows), protocol(), key=KEY)


@pytest.mark.parametrize("method", ["carried", "free", "trades"])
def test_what_is_measured_leaves_the_model_as_it_was(tmp_path: Path, method: str) -> None:
    made = tiny_protocol()
    fields = made.model_dump()
    fields["hardening"] |= {"method": method}
    made = type(made).model_validate(fields)
    original = tiny_model(tmp_path, cohort=tiny_cohort(tmp_path, made))
    before = {name: value.clone() for name, value in original.state_dict().items()}
    sample = sample_cohort(tmp_path / "tiny.npz", made, key=KEY, most=20)
    costs = step_costs(original, sample.cohort, made, "cpu", 64)
    assert min(costs.clean, costs.harden, costs.forward, costs.gradient) > 0
    assert set(costs.memory) == {"attack", "clean step", "hardening step"}
    assert all((original.state_dict()[name] == value).all() for name, value in before.items())


@pytest.mark.parametrize(("taken", "step"), [([9.0, 1.0, 2.0, 1.0], 1.0), ([9.0, 1.0], 1.0), ([9.0], 9.0)])
def test_what_an_ordinary_step_sets_up_once_is_not_in_what_one_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: list[float], step: float
) -> None:
    made = tiny_protocol()
    cohort = tiny_cohort(tmp_path, made)
    monkeypatch.setattr(clean, "_clean_epochs", lambda *_, **__: taken)
    original = tiny_model(tmp_path, cohort=cohort)
    assert clean.step_seconds(original, cohort, made.hardening, seed=0, device="cpu", most=len(taken)) == step


def test_epochs_are_added_until_there_are_enough_steps() -> None:
    assert epochs_and_batches(Hardening(epochs=3, min_steps=1, batch_size=10), 105) == (3, 10)
    assert epochs_and_batches(Hardening(epochs=3, min_steps=95, batch_size=10), 105) == (10, 10)
    assert epochs_and_batches(Hardening(epochs=4, min_steps=1, batch_size=50, method="free", replays=4), 20) == (1, 1)


def test_what_waits_for_other_processes_now_and_then_is_not_taken_for_the_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, answer, calls = tiny_protocol(), measuring.logits_in_batches, itertools.count()

    def busy(*arguments: Any) -> Tensor:
        time.sleep(0.5 if next(calls) % 2 else 0.0)
        return answer(*arguments)

    cohort, model = tiny_cohort(tmp_path, protocol), tiny_model(tmp_path)
    monkeypatch.setattr(measuring, "logits_in_batches", busy)
    forward, _ = quick_costs(model, cohort, protocol, "cpu")
    assert forward < 0.25 / 16  # seconds a case, of sixteen
    assert next(calls) > 2


def test_the_doctor_names_what_brings_a_module_that_several_distributions_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    found = next(item for item in seen(Path()) if item.what == "extra `export`")
    assert "protobuf" in found.found
    assert "google-auth" not in found.found
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "google.protobuf" else real(name))
    assert "google" in next(item for item in seen(Path()) if item.what == "extra `export`").found
