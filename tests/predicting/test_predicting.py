"""Single files through the view that a run was gated on: the same input, the same answers, and refusal of the rest."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import assert_clear, medharden
from image_makers import dicom_file
from PIL import Image
from released_runs import Released, copied, released
from tiny import ARCH

import medharden as package
from medharden.canonical import canonical_json, parse_canonical
from medharden.errors import DataError, ModelError
from medharden.models import load_hardened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return released(tmp_path_factory.mktemp("made"), "guarded")


@pytest.fixture(scope="module")
def pictures(made: Released, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return made.pictures(tmp_path_factory.mktemp("pictures"))


def test_a_loaded_model_knows_its_classes_its_view_and_its_decision(made: Released) -> None:
    model = load_hardened(made.run, arch=ARCH)
    assert model.classes == made.cohort.classes
    assert model.input == made.protocol.input
    assert model.decision == "argmax"


def test_a_file_read_by_itself_is_the_input_that_was_gated_on_bit_for_bit(made: Released, pictures: list[Path]) -> None:
    test = made.cohort.indices("test")
    for number, path in enumerate(pictures):
        expected = torch.from_numpy(made.cohort.inputs.read([int(test[number])]))
        assert torch.equal(package.read_case(path, load_hardened(made.run, arch=ARCH)), expected)


def test_the_command_answers_as_the_model_does_in_all_three_forms(
    made: Released, pictures: list[Path], tmp_path: Path
) -> None:
    model = load_hardened(made.run, arch=ARCH)
    inputs, _ = made.cohort.batch(made.cohort.indices("test")[: len(pictures)])
    with torch.no_grad():
        assessed = model.assess(inputs)
    expected = [made.cohort.classes[int(k)] for k in (assessed.logits + model.decision_bias).argmax(1)]
    done = medharden("predict", made.run, *pictures, "--arch", ARCH, "--json", cwd=tmp_path)
    assert_clear(done, 0)
    said = json.loads(done.stdout)
    assert [p["answer"] for p in said["predictions"]] == [[name] for name in expected]
    assert [p["path"] for p in said["predictions"]] == [str(p) for p in pictures]
    assert [p["referred"] for p in said["predictions"]] == assessed.referred.tolist()
    assert said["verdict"] == "PASS"
    for row, prediction in zip(assessed.logits.softmax(1), said["predictions"], strict=True):
        assert list(prediction["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-5)
    done = medharden("predict", made.run, *pictures, "--arch", ARCH, "--csv", cwd=tmp_path)
    assert_clear(done, 0)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [r["answer"] for r in rows] == expected
    assert [r["referred"] for r in rows] == [str(r).lower() for r in assessed.referred.tolist()]
    assert "look at it" in medharden("predict", made.run, *pictures, "--arch", ARCH, cwd=tmp_path).stdout or not any(
        assessed.referred
    )


def test_what_the_view_does_not_take_is_refused_by_its_reason_and_the_rest_is_answered(
    made: Released, pictures: list[Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 16, 3), dtype=np.uint8)
    Image.fromarray(noise[..., 0]).save(tmp_path / "large.png")
    Image.fromarray(noise[:16]).save(tmp_path / "colour.png")
    Image.fromarray(np.full((16, 16), 7, np.uint8)).save(tmp_path / "flat.png")
    (tmp_path / "text.png").write_bytes(b"no picture")
    names = ["large.png", "colour.png", "flat.png", "text.png", "absent.png"]
    done = medharden("predict", made.run, *names, pictures[0], "--arch", ARCH, "--json", cwd=tmp_path)
    assert_clear(done, 1)
    found = {p["path"]: p for p in json.loads(done.stdout)["predictions"]}
    assert "20x16, the model was gated on 16x16" in found["large.png"]["refused"]
    assert "in colour" in found["colour.png"]["refused"]
    assert "constant" in found["flat.png"]["refused"]
    assert all(found[name]["refused"] and not found[name]["answer"] for name in names)
    assert found[str(pictures[0])]["answer"]


def test_no_text_of_a_dicom_header_is_shown(made: Released, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 4000, (16, 16)).astype(np.uint16)
    (tmp_path / "scan.dcm").write_bytes(dicom_file(values, PatientName="Doe^Jane", PatientID="MRN-4711"))
    for form in ("--json", "--csv"):
        done = medharden("predict", made.run, "scan.dcm", "--arch", ARCH, form, cwd=tmp_path)
        assert_clear(done, 0, "scan.dcm")
        assert "Doe" not in done.stdout + done.stderr
        assert "4711" not in done.stdout + done.stderr


def test_a_volume_is_refused_by_a_model_of_single_images(made: Released, tmp_path: Path) -> None:
    import nibabel

    nibabel.Nifti1Image(np.random.default_rng(2).normal(size=(8, 8, 8)), np.eye(4)).to_filename(tmp_path / "v.nii")
    with pytest.raises(DataError, match="the file is a volume"):
        package.read_case(tmp_path / "v.nii", load_hardened(made.run, arch=ARCH))


def test_answers_of_a_model_without_a_pass_say_so(made: Released, pictures: list[Path], tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    (run / "gate.json").unlink()
    done = medharden("predict", run, pictures[0], "--arch", ARCH, "--json", cwd=tmp_path)
    assert_clear(done, 0, "without a PASS")
    assert json.loads(done.stdout)["verdict"] == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["0", "1", "2"]}, "another model"),
        ({"shape": [1, 16]}, "another model"),
        ({"shape": [3, 16, 16]}, "another model"),
        ({"classes": "01"}, "contract"),
        ({"input": {"dims": 2, "run": "import os"}}, "contract"),
        ({"extra": 1}, "other keys"),
    ],
)
def test_a_contract_that_was_edited_is_refused(
    made: Released, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    from medharden.models.description import read_description

    told = parse_canonical((made.run / "hardened.json").read_bytes()[:-1])
    told["contract"] |= change
    with pytest.raises(ModelError, match=words):
        read_description(canonical_json(told) + b"\n")


def test_an_edited_contract_does_not_belong_to_the_weights(made: Released, tmp_path: Path) -> None:
    run = copied(made, tmp_path)
    text = (run / "hardened.json").read_text(encoding="utf-8")
    (run / "hardened.json").write_text(text.replace('"stretch"', '"pad"'), encoding="utf-8")
    with pytest.raises(ModelError, match="does not belong"):
        load_hardened(run, arch=ARCH)
