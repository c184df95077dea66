"""An exported model on the test split: answered, attacked through the runtime, and decided on by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command import assert_clear, medharden
from released_runs import Released, copied, released, released_findings
from tiny import ARCH
from verifying_runs import WHO, make_key

from medharden.audit import digest_file, read_cases, read_log, read_record, write_cases, write_record
from medharden.errors import ModelError, RunError
from medharden.evaluating import evaluate_artefact
from medharden.exporting import export
from medharden.gating import gate_artefact
from medharden.models import load_hardened, open_onnx, read_onnx
from medharden.record import Evaluation, GateDecision, Verdict
from medharden.verifying import sign, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released(tmp_path_factory.mktemp("made"), "guarded")


@pytest.fixture(scope="module")
def evaluated(made: Released, tmp_path_factory: pytest.TempPathFactory) -> tuple[Released, Path, Evaluation]:
    run = copied(made, tmp_path_factory.mktemp("evaluated"))
    again = replace(made, run=run)
    path, _ = export(load_hardened(run, arch=ARCH), run, to="onnx")
    return again, path, evaluated_again(again, path)


def evaluated_again(made: Released, path: Path) -> Evaluation:
    model = load_hardened(made.run, arch=ARCH)
    return evaluate_artefact(model, read_onnx(path), made.cohort, made.protocol, made.run)


def spoiled(path: Path, target: Path) -> Path:
    """The same artefact with noise in each of its weights, as a poor conversion would leave it."""
    model, random = onnx.load(path), np.random.default_rng(0)
    for value in model.graph.initializer:
        array = onnx.numpy_helper.to_array(value)
        if array.ndim >= 2 and array.dtype == np.float32:
            noisy = array + 1.5 * np.abs(array).max() * random.normal(size=array.shape)
            value.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float32), value.name))
    onnx.save(model, target)
    return target


def test_what_beats_the_composite_beats_its_exported_form(evaluated: tuple[Released, Path, Evaluation]) -> None:
    made, _, record = evaluated
    own = read_record(made.run / "evaluation.json", Evaluation).subject("composite")
    ours, theirs = record.subject("composite"), record.subject("artefact")
    assert (ours.clean_correct, ours.robust_correct) == (own.clean_correct, own.robust_correct)
    assert theirs.clean_correct == ours.clean_correct
    assert theirs.robust_correct <= ours.robust_correct
    assert [attack.name for attack in theirs.attacks] == ["replay", "square-500"]
    assert theirs.attacks[0].wins == sum(attack.wins for attack in ours.attacks)
    assert record.artefact


def test_an_exact_form_passes_by_a_verdict_of_its_own(evaluated: tuple[Released, Path, Evaluation]) -> None:
    made, path, record = evaluated
    decision = gate_artefact(made.run, digest_file(path))
    assert decision.verdict is Verdict.PASS
    assert decision.artefact == record.artefact == digest_file(path)
    agreement = next(e for e in decision.endpoints if e.name == "agreement")
    assert (agreement.estimate, agreement.n, agreement.role) == (0.0, 120, "reported")
    written = made.run / "artefacts" / record.artefact[:16] / "gate.json"
    assert read_record(written, GateDecision) == decision
    assert read_record(made.run / "gate.json", GateDecision).artefact == ""


def test_a_broken_form_fails_although_its_run_passed(
    evaluated: tuple[Released, Path, Evaluation], tmp_path: Path
) -> None:
    source, path, _ = evaluated
    made = replace(source, run=copied(source, tmp_path))
    poor = spoiled(path, tmp_path / "poor.onnx")
    record = evaluated_again(made, poor)
    decision = gate_artefact(made.run, record.artefact)
    assert record.subject("artefact").clean_correct < record.subject("composite").clean_correct
    assert decision.verdict is Verdict.FAIL
    assert next(e for e in decision.endpoints if e.name == "agreement").estimate > 0
    assert "gate.artefacts_evaluated" in {f.code for f in decision.findings}
    assert read_record(made.run / "gate.json", GateDecision).verdict is Verdict.PASS


def test_an_artefact_of_another_run_or_of_other_shapes_is_refused(
    evaluated: tuple[Released, Path, Evaluation], tmp_path: Path
) -> None:
    made, path, _ = evaluated
    foreign = onnx.load(path)
    for entry in foreign.metadata_props:
        if entry.key == "medharden.hardened":
            entry.value = "0" * 64
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="is of the weights"):
        evaluated_again(made, tmp_path / "foreign.onnx")
    lying = onnx.load(path)
    answer = next(node for node in lying.graph.node if "answer" in node.output)
    answer.output[0] = "hidden"
    zeros = onnx.helper.make_node("Sub", ["hidden", "hidden"], ["answer"])
    lying.graph.node.append(zeros)
    onnx.save(lying, tmp_path / "lying.onnx")
    with pytest.raises(ModelError, match="don't follow from its logits"):
        evaluated_again(made, tmp_path / "lying.onnx")
    assert read_log(made.run).entries[-1].event == "artefact.failed"


def test_an_artefact_without_metadata_is_evaluated_and_said_to_be_unbound(
    evaluated: tuple[Released, Path, Evaluation], tmp_path: Path
) -> None:
    source, path, _ = evaluated
    made = replace(source, run=copied(source, tmp_path))
    bare = onnx.load(path)
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    assert "artefact.unbound" in {f.code for f in evaluated_again(made, tmp_path / "bare.onnx").findings}


def edited_count(run: Path, place: str) -> None:
    path = run / place / "evaluation.json"
    record = read_record(path, Evaluation)
    subject = replace(record.subject("artefact"), referred=59)
    write_record(path, replace(record, subjects=(record.subject("composite"), subject)))


def edited_table(run: Path, place: str) -> None:
    path = run / place / "cases.parquet"
    table = read_cases(path)
    better = replace(table.subjects["artefact"], robust=~table.attacked)
    write_cases(path, replace(table, subjects={**table.subjects, "artefact": better}))


@pytest.mark.parametrize("edit", [edited_count, edited_table], ids=lambda f: f.__name__)
def test_an_edited_evaluation_of_an_artefact_is_invalid(
    evaluated: tuple[Released, Path, Evaluation], tmp_path: Path, edit: object
) -> None:
    made, _, record = evaluated
    run = copied(made, tmp_path)
    edit(run, f"artefacts/{record.artefact[:16]}")
    decision = gate_artefact(run, record.artefact, read_only=True)
    assert decision.verdict is Verdict.INVALID
    assert "audit.jsonl recorded" in decision.reasons[0]
    assert {fault.file.rpartition("/")[0] for fault in verify(run).faults} == {f"artefacts/{record.artefact[:16]}"}


def test_a_signature_covers_the_artefacts_verdict_and_later_ones_need_consent(
    evaluated: tuple[Released, Path, Evaluation], tmp_path: Path
) -> None:
    made, path, record = evaluated
    run = copied(made, tmp_path)
    gate_artefact(run, record.artefact)
    key, public = make_key(tmp_path)
    sign(run, key, WHO, render=None)
    found = verify(run, public_keys=[public], require_signature=True)
    assert not found.faults
    assert f"artefacts/{record.artefact[:16]}/gate.json" in found.covered
    with pytest.raises(RunError, match="is signed"):
        gate_artefact(run, record.artefact)
    with pytest.raises(RunError, match="is signed"):
        evaluated_again(replace(made, run=run), path)
    assert gate_artefact(run, record.artefact, read_only=True).verdict is Verdict.PASS


def test_the_commands_evaluate_decide_and_show_it_in_the_report(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    export(load_hardened(run, arch=ARCH), run, to="onnx")
    artefact = run / "exports" / "hardened.onnx"
    assert_clear(
        medharden("gate", run, "--artefact", artefact, cwd=tmp_path), 1, "holds no evaluation of this artefact"
    )
    options = ("--data", made.archive, "--artefact", artefact, "--arch", ARCH, "--json")
    done = medharden("evaluate", run, *options, cwd=tmp_path)
    assert_clear(done, 0)
    said = json.loads(done.stdout)
    assert said["subjects"]["artefact"]["clean"] == said["subjects"]["composite"]["clean"]
    assert_clear(medharden("report", run, cwd=tmp_path), 0)
    done = medharden("gate", run, "--artefact", artefact, "--json", cwd=tmp_path)
    assert_clear(done, 0)
    assert json.loads(done.stdout)["verdict"] == "PASS"
    page = (run / "report.html").read_text(encoding="utf-8")
    assert digest_file(artefact)[:12] in page
    assert not verify(run).faults


def test_a_model_in_a_session_answers_in_any_batch(evaluated: tuple[Released, Path, Evaluation]) -> None:
    _, path, _ = evaluated
    model = open_onnx(path.read_bytes(), "a.onnx", threads=1)
    inputs = torch.rand(9, 1, 16, 16)
    whole = model(inputs)["logits"]
    parts = torch.cat([model(part)["logits"] for part in inputs.split(4)])
    assert torch.allclose(whole, parts, atol=1e-5)


def test_a_mixture_is_attacked_in_its_exported_form_by_what_beats_it(tmp_path: Path) -> None:
    made = released(tmp_path, "mixed")
    path, _ = export(load_hardened(made.run, arch=ARCH), made.run, to="onnx")
    record = evaluated_again(made, path)
    ours, theirs = record.subject("composite"), record.subject("artefact")
    assert (
        theirs.robust_correct
        <= ours.robust_correct
        == (read_record(made.run / "evaluation.json", Evaluation).subject("composite").robust_correct)
    )
    assert gate_artefact(made.run, record.artefact).verdict is Verdict.PASS


def test_of_several_findings_each_is_attacked_in_the_exported_form_as_in_the_composite(tmp_path: Path) -> None:
    made = released_findings(tmp_path)
    path, _ = export(load_hardened(made.run, arch=ARCH), made.run, to="onnx", ungated=True)
    record = evaluated_again(made, path)
    own = read_cases(made.run / "cases.parquet").subjects["composite"]
    table = read_cases(made.run / "artefacts" / record.artefact[:16] / "cases.parquet")
    ours, theirs = table.subjects["composite"], table.subjects["artefact"]
    assert np.array_equal(ours.robust, own.robust)
    assert not (theirs.robust & ~ours.robust).any()
    assert np.array_equal(ours.findings.robust, own.findings.robust)
    assert (theirs.findings.robust & ~ours.findings.robust).sum() == 0
    assert np.array_equal(theirs.predicted, ours.predicted)
    assert theirs.referred_attacked is not None
    assert [attack.name for attack in record.subject("artefact").attacks] == ["replay", "square-500", "replay-push"]
    decision = gate_artefact(made.run, record.artefact)
    assert decision.verdict is not Verdict.INVALID
    assert next(e for e in decision.endpoints if e.name == "agreement").estimate == 0.0
