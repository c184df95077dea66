"""Clean answers under corruptions, through evaluation, gate and report; and after an interrupt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from tiny import ARCH, EACH_CASE, KEY, tiny_model

from medharden.audit import read_cases, read_record
from medharden.data import Cohort, load_cohort
from medharden.data.view.corruptions import corrupted, draw_of
from medharden.evaluating import evaluate
from medharden.evaluating import shifted as shifted_module
from medharden.evaluating.shifted import answers_under_shift
from medharden.gating import gate
from medharden.hardening import harden
from medharden.models import HardenedClassifier, load_classifier, load_hardened
from medharden.protocol import Protocol, parse_protocol
from medharden.record import Evaluation, point_of
from medharden.reporting import render
from medharden.reporting.schemas import record_schemas

TEXT = (
    """
schema_version: 1
name: shifted
title: Shifted
intended_use: Tests.
threat: {eps: 0.06}
hardening: {epochs: 4, min_steps: 1, batch_size: 25, learning_rate: 0.01, probe_cases: 20}
suite: {attacks: [{attack: pgd, loss: ce, steps: 3}], cases: 20, reason: Tests are quick., sanity_cases: 0}
shift: {corruptions: [noise, rotation, contrast-down], severities: [2, 5], margin: 0.1, justification: Tests.}
"""
    + EACH_CASE
)
WAYS = [(name, severity) for name in ("noise", "rotation", "contrast-down") for severity in (2, 5)]


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return parse_protocol(TEXT, "shifted.yaml")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory, protocol: Protocol) -> Cohort:
    """Images of which many lie near the border between the classes, so that corruptions change answers."""
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 200), ("val", 80), ("test", 120)):
        labels = np.arange(count) % 2
        images = random.normal(100, 12, (count, 16, 16))
        images[labels == 0, :8, :8] += random.uniform(0, 25, (count - labels.sum(), 1, 1))
        images[labels == 1, :8, 8:] += random.uniform(0, 25, (labels.sum(), 1, 1))
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "faint.npz"
    np.savez(path, **arrays)
    return load_cohort(path, protocol, key=KEY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cohort: Cohort, protocol: Protocol) -> Path:
    folder = tmp_path_factory.mktemp("run")
    original = tiny_model(folder, cohort=cohort)
    harden(original, cohort, protocol, folder / "run")
    evaluate(
        load_hardened(folder / "run", arch=ARCH), cohort, protocol, folder / "run", original=original, batch_size=50
    )
    gate(folder / "run")
    return folder / "run"


def asked(model: HardenedClassifier, cohort: Cohort, protocol: Protocol, folder: Path, batch: int = 50) -> list[list]:
    inputs = cohort.stream(cohort.indices("test"))
    found, told = answers_under_shift(model.clean_path, model, inputs, cohort, protocol, batch, folder)
    assert told == ()
    return [[a.corruption, a.severity, a.original.tolist(), a.composite.tolist()] for a in found]


def test_the_record_holds_what_both_models_answer_to_each_corrupted_case(
    run: Path, cohort: Cohort, protocol: Protocol
) -> None:
    model, table = load_hardened(run, arch=ARCH), read_cases(run / "cases.parquet")
    evaluation = read_record(run / "evaluation.json", Evaluation)
    test = cohort.record.split("test")
    inputs, _ = cohort.batch(cohort.indices("test"))
    assert [(a.corruption, a.severity) for a in table.shift] == WAYS
    for answers in table.shift:
        way = (answers.corruption, answers.severity)
        draws = [draw_of(protocol.seed, case.pixels, *way) for case in test]
        changed = corrupted(inputs, answers.corruption, answers.severity, draws)
        assert not torch.equal(changed, inputs), way
        with torch.no_grad():
            assert answers.original.tolist() == model.clean_path(changed).argmax(1).tolist()
            assert answers.composite.tolist() == model(changed).argmax(1).tolist()
    assert evaluation.shift == tuple(point_of(answers, table) for answers in table.shift)
    moved = {a.corruption for a in table.shift if (a.original != table.subjects["original"].predicted).any()}
    assert len(moved) > 1  # which of them move an answer hangs on how the weights were drawn


def test_gate_and_report_show_each_corruption(run: Path) -> None:
    decided = json.loads((run / "gate.json").read_text())
    names = {e["name"]: e["role"] for e in decided["endpoints"] if e["kind"] == "shift"}
    assert names["shift:noise:accuracy"] == "co-primary"
    assert names["shift:noise:recall:0"] == "reported"  # no margin of recall is stated
    render(run)
    page, machine = (run / "report.html").read_text(), json.loads((run / "report.json").read_text())
    assert "Under ordinary changes of image quality" in page
    assert "Lower contrast" in page
    assert [(p["corruption"], p["severity"]) for p in machine["shift"]] == WAYS
    assert "A curve is not the verdict" in page
    for file, schema in (("report.json", "report"), ("evaluation.json", "evaluation")):
        jsonschema.validate(json.loads((run / file).read_text()), record_schemas()[schema])
    points = {(p["subject"], p["ratio"]): p["standing"] for p in machine["curve"]["points"]}
    composite = next(s for s in machine["subjects"] if s["name"] == "composite")
    assert points["composite", 1.0] == composite["robust_correct"]
    for each in machine["curve"]["expected_robustness"]:
        assert each["composite"]["lower"] <= each["composite"]["estimate"] <= each["composite"]["upper"]


def test_batches_change_no_answer(run: Path, cohort: Cohort, protocol: Protocol, tmp_path: Path) -> None:
    model = load_hardened(run, arch=ARCH)
    assert asked(model, cohort, protocol, tmp_path) == asked(model, cohort, protocol, tmp_path, batch=7)


def interrupted(
    monkeypatch: pytest.MonkeyPatch, model: HardenedClassifier, cohort: Cohort, protocol: Protocol, folder: Path
) -> None:
    """Ends in the third of six batches, as Ctrl-C would."""
    calls = []

    def stopping(*args: object, **more: object) -> torch.Tensor:
        calls.append(args)
        if len(calls) > 2 * len(WAYS) + 1:
            raise KeyboardInterrupt
        return corrupted(*args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shifted_module, "corrupted", stopping)
        with pytest.raises(KeyboardInterrupt):
            asked(model, cohort, protocol, folder, batch=20)


def test_an_interrupted_evaluation_goes_on_to_the_same_answers(
    run: Path, cohort: Cohort, protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_hardened(run, arch=ARCH)
    whole = asked(model, cohort, protocol, tmp_path)
    (tmp_path / "evaluate.shift.partial").unlink()
    interrupted(monkeypatch, model, cohort, protocol, tmp_path)
    calls: list[int] = []

    def counting(inputs: torch.Tensor, *others: object) -> torch.Tensor:
        calls.append(len(inputs))
        return corrupted(inputs, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(shifted_module, "corrupted", counting)
    assert asked(model, cohort, protocol, tmp_path, batch=20) == whole
    assert sum(calls) == (len(cohort.indices("test")) - 40) * len(WAYS)


def test_what_was_altered_between_is_not_taken_and_that_is_said(
    run: Path, cohort: Cohort, protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_hardened(run, arch=ARCH)
    interrupted(monkeypatch, model, cohort, protocol, tmp_path)
    partial = tmp_path / "evaluate.shift.partial"
    data = bytearray(partial.read_bytes())
    data[-60] ^= 1
    partial.write_bytes(bytes(data))
    inputs = cohort.stream(cohort.indices("test"))
    found, told = answers_under_shift(model.clean_path, model, inputs, cohort, protocol, 50, tmp_path)
    assert [f.code for f in told] == ["evaluation.begun_anew"]
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    again, _ = answers_under_shift(model.clean_path, model, inputs, cohort, protocol, 50, tmp_path)
    assert all(np.array_equal(a.composite, b.composite) for a, b in zip(found, again, strict=True))


def test_another_seed_begins_anew_and_draws_otherwise(
    run: Path, cohort: Cohort, protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, load_hardened(run, arch=ARCH), cohort, protocol, tmp_path)
    other = Protocol.model_validate(protocol.model_dump() | {"seed": protocol.seed + 1})
    left = asked(load_hardened(run, arch=ARCH), cohort, other, tmp_path, batch=20)
    (tmp_path / "evaluate.shift.partial").unlink()
    assert left == asked(load_hardened(run, arch=ARCH), cohort, other, tmp_path, batch=20)
    assert left != asked(load_hardened(run, arch=ARCH), cohort, protocol, tmp_path, batch=20)


def test_nothing_is_measured_where_the_protocol_names_no_corruption(
    run: Path, cohort: Cohort, protocol: Protocol, tmp_path: Path
) -> None:
    fields = protocol.model_dump() | {"shift": {}}
    assert asked(load_hardened(run, arch=ARCH), cohort, Protocol.model_validate(fields), tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_an_original_from_its_file_is_what_answers(run: Path, cohort: Cohort, protocol: Protocol) -> None:
    original = load_classifier(run.parent / "model.pt", arch=ARCH)
    table = read_cases(run / "cases.parquet")
    found, _ = answers_under_shift(
        original, load_hardened(run, arch=ARCH), cohort.stream(cohort.indices("test")), cohort, protocol, 50, run.parent
    )
    assert all(np.array_equal(a.original, b.original) for a, b in zip(found, table.shift, strict=True))
