"""What leaves a run: only weights with a PASS, or marked; on record, and covered by signatures."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from command import assert_clear, medharden
from released_runs import Released, copied, released_once
from tiny import ARCH
from verifying_runs import WHO, make_key

from medharden.audit import read_log, read_record
from medharden.errors import RunError
from medharden.exporting import export
from medharden.models import HardenedClassifier, load_hardened
from medharden.record import ExportRecord
from medharden.verifying import sign, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released_once(tmp_path_factory, "guarded")


def exported(run: Path, **options: object) -> tuple[Path, ExportRecord]:
    return export(load_hardened(run, arch=ARCH), run, **{"to": "onnx", **options})


def test_an_exported_run_answers_its_test_cases_as_the_run_does(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    path, record = exported(run)
    model, (inputs, _) = load_hardened(run, arch=ARCH), made.cohort.batch(made.cohort.indices("test"))
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(None, {"inputs": inputs.numpy()}), strict=True))
    with torch.no_grad():
        assessed = model.assess(inputs)
    assert outputs["answer"].tolist() == (assessed.logits + model.decision_bias).argmax(1).tolist()
    assert outputs["refer"].tolist() == assessed.referred.tolist()
    said = session.get_modelmeta().custom_metadata_map
    assert said["medharden.hardened"] == record.hardened
    assert json.loads(said["medharden.contract"])["classes"] == list(made.cohort.classes)
    assert (said["medharden.verdict"], said["medharden.gated"]) == ("PASS", "yes")
    told, kinds = json.loads(said["medharden.graph"]), {"float32": "tensor(float)", "int64": "tensor(int64)"}
    for side, held in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert list(told[side]) == sorted(value.name for value in held)
        for value in held:
            entry = told[side][value.name]
            assert kinds.get(entry["dtype"], "tensor(bool)") == value.type
            assert entry["shape"][1:] == value.shape[1:]


def test_an_export_is_on_record_and_a_flipped_byte_of_it_is_found(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    path, record = exported(run)
    assert read_record(run / "exports" / "hardened.onnx.json", ExportRecord) == record
    entry = next(e for e in read_log(run).entries if e.event == "export.recorded")
    assert entry.data["files"]["exports/hardened.onnx"] == record.files["exports/hardened.onnx"]
    key, public = make_key(tmp_path)
    sign(run, key, WHO, render=None)
    assert not verify(run, public_keys=[public], require_signature=True).faults
    for name in ("exports/hardened.onnx", "exports/hardened.onnx.md"):
        data = bytearray((run / name).read_bytes())
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(bytes(data))
        assert name in {fault.file for fault in verify(run, public_keys=[public]).faults}
        data[len(data) // 2] ^= 1
        (run / name).write_bytes(bytes(data))
    assert path.is_file()


def test_a_signed_run_is_exported_from_by_consent_alone(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    key, _ = make_key(tmp_path)
    sign(run, key, WHO, render=None)
    with pytest.raises(RunError, match="is signed"):
        exported(run)
    assert not (run / "exports").exists()
    exported(run, supersede=True)
    sign(run, key, WHO, render=None, supersede=True)
    assert not verify(run).faults


def edited(run: Path) -> None:
    text = (run / "gate.json").read_text(encoding="utf-8")
    (run / "gate.json").write_text(text.replace('"FAIL"', '"PASS"'), encoding="utf-8")


def failed(run: Path) -> None:
    """The log's and the file's last decision become a FAIL, as another protocol would give."""
    from medharden.audit import AuditLog, digest_bytes
    from medharden.audit.log import LOG

    text = (run / "gate.json").read_text(encoding="utf-8").replace('"verdict":"PASS"', '"verdict":"FAIL"')
    (run / "gate.json").write_text(text, encoding="utf-8")
    entry = [e for e in read_log(run).entries if e.event == "gate.decided"][-1]
    said = entry.data | {"verdict": "FAIL", "gate": digest_bytes(text.encode())}
    AuditLog(run / LOG).append("gate.decided", **said)


CHANGES = {
    "no verdict": (lambda run: (run / "gate.json").unlink(), "no verdict"),
    "a FAIL": (failed, "verdict on these weights is FAIL"),
    "a FAIL that was edited to a PASS": (lambda run: (failed(run), edited(run)), "not the decision that the log"),
    "another evaluation": (lambda run: (run / "evaluation.json").unlink(), "missing"),
    "an edited table": (lambda run: (run / "cases.parquet").write_bytes(b"x"), "case table is another"),
    "another protocol": (
        lambda run: (run / "protocol.yaml").write_text(
            (run / "protocol.yaml").read_text().replace("floor: 0.3", "floor: 0.2")
        ),
        "another protocol",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_without_a_pass_on_these_very_weights_nothing_leaves(made: Released, tmp_path: Path, change: str) -> None:
    run = copied(made, tmp_path)
    CHANGES[change][0](run)
    with pytest.raises(RunError, match=CHANGES[change][1]):
        exported(run)
    assert not (run / "exports").exists()
    assert read_log(run).entries[-1].event == "export.failed"


def test_an_ungated_export_says_so_in_name_metadata_card_and_record(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    failed(run)
    path, record = exported(run, ungated=True)
    assert path.name == "hardened.UNGATED.onnx"
    said = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert (said["medharden.gated"], said["medharden.verdict"]) == ("UNGATED", "FAIL")
    assert "UNGATED" in path.with_name(path.name + ".md").read_text(encoding="utf-8")
    assert not record.gated
    assert record.findings[0].severity == "critical"


def test_weights_that_are_not_the_runs_are_not_exported(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    lying = load_hardened(run, arch=ARCH)
    branch = copy.deepcopy(lying.robust_branch)
    with torch.no_grad():
        branch.network.classifier.bias += 1
    changed = HardenedClassifier(lying.clean_path, branch, lying.fusion, lying.decision_bias, contract=lying.contract)
    with pytest.raises(RunError, match="not the one that lies in"):
        export(changed, run, to="onnx")


def test_the_command_exports_and_refuses(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    done = medharden("export", run, "--to", "torchscript", "--quantise", "int8", "--arch", ARCH, cwd=tmp_path)
    assert_clear(done, 1, "int8 is made for onnx alone")
    done = medharden("export", run, "--to", "onnx", "--quantise", "int8", "--arch", ARCH, "--json", cwd=tmp_path)
    assert_clear(done, 0, "Quantised to int8")
    said = json.loads(done.stdout)
    assert said["path"].endswith("hardened.int8.onnx")
    assert said["parity"]["largest"] > 0
    assert_clear(medharden("export", tmp_path / "nowhere", "--to", "pt2", cwd=tmp_path), 1, "is no run directory")
    failed(run)
    done = medharden("export", run, "--to", "pt2", "--arch", ARCH, cwd=tmp_path)
    assert_clear(done, 1, "Only weights with a PASS leave", "--ungated")
