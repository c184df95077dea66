"""`medharden attack`: files that fool a model once saved, what is reported of them, and what is left on disk."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gating_factory as factory
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from command import assert_clear, environment, medharden
from data_helpers import conformance
from PIL import Image
from stored_models import STRIPES, write_stripes
from tiny import KEY, tiny_protocol, write_archive

from medharden.attacking import Target, attack
from medharden.audit import AuditLog, canonical_json, digest_file, read_record, write_record
from medharden.cli.attacked import AttackJob, run_attack
from medharden.cli.console import out
from medharden.cli.pipeline import Job, run_all
from medharden.data import Cohort, load_cohort, write_phantom_cohort
from medharden.data.stored.cases import StoredCases, read_back, stored_cases
from medharden.data.stored.values import input_of
from medharden.errors import DataError, OutputError, PrivacyError, ProtocolError, RunError
from medharden.models import (
    Classifier,
    DecisionView,
    HardenedClassifier,
    describe_hardened,
    hardened_bytes,
    load_classifier,
    state_digest,
)
from medharden.protocol import Protocol, parse_protocol
from medharden.record import AttackRecord, FusionRecord

TEXT = """
schema_version: 1
name: stripes
title: Stripes
intended_use: Tests.
input: {channels: gray, intensity: {mode: window, low: -160, high: 240}}
threat: {space: stored, eps: 4, unit: HU}
splits: {near_duplicate_bits: null}
suite: {attacks: [{attack: apgd, loss: margin, steps: 12}], cases: 6, reason: Tests are quick.}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, whose headers carry names and identifiers, a model of their stripes, and a protocol."""
    folder = tmp_path_factory.mktemp("shop")
    write_phantom_cohort(folder / "data", patients=24, seed=3)
    write_stripes(folder / "model.pt")
    (folder / "stripes.yaml").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def done(shop: Path) -> subprocess.CompletedProcess[str]:
    """The command, run once."""
    return run(shop, "out", "--format", "json")


def run(shop: Path, out: str, *more: object, **variables: str) -> subprocess.CompletedProcess[str]:
    fixed = ("--arch", STRIPES, "--data", "data", "--protocol", "stripes.yaml", "--write", out)
    return medharden("attack", "model.pt", *fixed, *more, cwd=shop, **variables)


def parts(shop: Path, text: str = TEXT) -> tuple[Protocol, Cohort, StoredCases, Classifier, Target]:
    protocol = parse_protocol(text, "stripes.yaml")
    cohort = load_cohort(shop / "data", protocol, key=KEY)
    model = load_classifier(shop / "model.pt", arch=STRIPES)
    target = Target("original", DecisionView(model, torch.zeros(2)), state_digest(model))
    return protocol, cohort, stored_cases(shop / "data", protocol, key=KEY), model, target


# --- what it is for ----------------------------------------------------------------------------------------------


def test_adversarial_images_still_fool_the_model_after_saving_and_rounding(done, shop: Path) -> None:
    assert done.returncode == 0, done.stderr + done.stdout
    said = json.loads(done.stdout)
    assert (said["n"], said["clean_accuracy"], said["subject"]) == (6, 1.0, "original")
    assert said["file_accuracy"] == said["search_accuracy"] == 0.0
    assert said["threat"] == "linf on stored values, eps 4 (HU) = 4 counts of the file"
    record = read_record(shop / "out" / "attack.json", AttackRecord)
    assert all(case.difference == 0.0 and case.won_by == "apgd-margin-12" for case in record.cases)
    assert sum(a.wins for a in record.attacks) == 6


def test_the_files_alone_give_the_figures_that_were_reported(done, shop: Path) -> None:
    protocol, cohort, _, model, _ = parts(shop)
    record = read_record(shop / "out" / "attack.json", AttackRecord)
    by_name = {case.case: row for row, case in enumerate(cohort.cases)}
    for case in record.cases:
        assert digest_file(shop / "out" / case.name) == case.digest
        row = by_name[case.case]
        image = read_back(shop / "out" / case.name, 2)
        right = int(model(input_of(image, protocol.input, 1)[None]).argmax(1)) == cohort.cases[row].label
        assert right is case.file


def test_stored_values_move_by_the_budget_at_most_and_some_do(done, shop: Path) -> None:
    _, cohort, files, _, _ = parts(shop)
    record = read_record(shop / "out" / "attack.json", AttackRecord)
    cases = {case.case: case for case in cohort.cases}
    for case in record.cases:
        before = files.stored_values(cases[case.case]).stored[0]
        after = pydicom.dcmread(shop / "out" / case.name).pixel_array.astype(np.int64)
        assert np.abs(after - before).max() == case.largest <= case.counts == 4
        assert (after != before).sum() == case.changed > 0


def test_nothing_of_the_patients_is_in_any_output(done, shop: Path) -> None:
    planted: set[bytes] = set()
    for path in (shop / "data").rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        planted |= {str(ds.PatientID).encode(), str(ds.PatientName).encode(), path.stem.encode(), b"20200101"}
        planted |= {str(e.value).encode() for e in ds.iterall() if e.VR == "UI" and str(e.value).startswith("2.25.")}
        planted |= {str(ds.InstitutionName).encode()}
    written = [p.read_bytes() for p in (shop / "out").rglob("*") if p.is_file()]
    written += [done.stdout.encode(), done.stderr.encode()]
    written += [str(p.relative_to(shop / "out")).encode() for p in (shop / "out").rglob("*")]
    assert len(planted) > 80
    assert [word for word in planted for data in written if word in data] == []


def test_what_would_name_a_patient_is_withheld_with_the_whole_folder(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = parse_protocol(TEXT.replace("cases: 6", "cases: 1"), "stripes.yaml")
    cohort = load_cohort(shop / "data", protocol, key=KEY)
    name = next(value for value in sorted(cohort.identifiers["name"]) if "^" in value)
    model = load_classifier(shop / "model.pt", arch=STRIPES)
    target = Target("original", DecisionView(model, torch.zeros(2)), "digest")
    monkeypatch.setattr("medharden.attacking._threat_in_words", lambda *_: f"of {name}")
    with pytest.raises(PrivacyError, match=r"attack\.json would hold patient data \(name\)"):
        attack(target, cohort, stored_cases(shop / "data", protocol, key=KEY), protocol, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_can_be_read_again_as_data(done, shop: Path) -> None:
    lines = (shop / "out" / "manifest.csv").read_text().splitlines()
    assert lines[0] == "path,patient,split,label"
    assert len(lines) == 7
    assert all(re.fullmatch(r"images/[0-9a-f]{16}\.dcm,[0-9a-f]{16},test,(no_)?lesion", line) for line in lines[1:])
    assert {p.name for p in (shop / "out").iterdir()} == {"attack.json", "images", "manifest.csv", "protocol.yaml"}


def test_the_same_attack_writes_the_same_bytes(done, shop: Path, tmp_path: Path) -> None:
    protocol, cohort, files, _, target = parts(shop)
    attack(target, cohort, files, protocol, tmp_path / "again")
    for path in (shop / "out" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "images" / path.name).read_bytes()


def test_named_cases_alone_are_attacked(done, shop: Path, tmp_path: Path) -> None:
    name = read_record(shop / "out" / "attack.json", AttackRecord).cases[0].case
    one = run(shop, str(tmp_path / "one"), "--case", name)
    assert_clear(one, 0, "0 of 1", "on the files, read back", "1 images and attack.json")
    assert [p.name for p in (tmp_path / "one" / "images").iterdir()] == [f"{name}.dcm"]


def test_a_budget_stated_for_the_input_is_translated_and_said_to_be(shop: Path, tmp_path: Path) -> None:
    text = TEXT.replace("space: stored, eps: 4, unit: HU", "eps: 0.0051").replace("cases: 6", "cases: 2")
    protocol, cohort, files, _, target = parts(shop, text)
    record = attack(target, cohort, files, protocol, tmp_path / "out")
    assert {case.counts for case in record.cases} == {2}  # 0.0051 of 400 HU
    assert "attack.translated" in {finding.code for finding in record.findings}


def test_a_case_that_is_wrong_without_attack_is_counted_and_not_written(shop: Path, tmp_path: Path) -> None:
    protocol, cohort, files, model, _ = parts(shop)
    contrary = Target("original", DecisionView(model, torch.tensor([50.0, 0.0])), "digest")
    record = attack(contrary, cohort, files, protocol, tmp_path / "out")
    wrong = [case for case in record.cases if not case.clean]
    assert wrong
    assert all((c.name, c.changed, c.won_by, c.file) == ("", 0, "clean", False) for c in wrong)
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(record.cases) - len(wrong)


def test_pictures_of_an_archive_are_written_as_png(tmp_path: Path) -> None:
    from tiny import ARCH, tiny_model

    protocol = tiny_protocol("seed: 5\n")
    cohort = load_cohort(write_archive(tmp_path / "tiny.npz"), protocol, key=KEY)
    model = tiny_model(tmp_path)
    files = stored_cases(tmp_path / "tiny.npz", protocol, key=KEY)
    names = [cohort.cases[int(row)].case for row in cohort.indices("test")[:4]]
    target = Target("original", DecisionView(model, torch.zeros(2)), ARCH)
    record = attack(target, cohort, files, protocol, tmp_path / "out", cases=names)
    assert {case.counts for case in record.cases} == {15}  # 0.06 of 255
    assert {Path(case.name).suffix for case in record.cases if case.name} == {".png"}
    assert all(case.search == case.file for case in record.cases)


def test_a_real_ct_slice_is_attacked_as_its_vendor_stored_it(test_data: Path, tmp_path: Path) -> None:
    text = TEXT.replace("cases: 6", "cases: 2").replace("input: {", "input: {size: [128, 128], ")
    protocol = parse_protocol(text, "ct.yaml")
    folder = test_data / "ct_contrast_dicom"
    cohort = load_cohort(folder, protocol, key=KEY)
    model = load_classifier(write_stripes(tmp_path / "model.pt"), arch=STRIPES)
    rows = [next(r for r in cohort.indices("test") if cohort.cases[r].label == k) for k in (0, 1)]
    inputs, labels = cohort.batch(rows)
    bias = -model(inputs) + 0.05 * torch.nn.functional.one_hot(labels, 2)  # both right, by a hair
    for row, shift in zip(rows, bias, strict=True):
        target = Target("original", DecisionView(model, shift.detach()), "digest")
        case = cohort.cases[row].case
        files = stored_cases(folder, protocol, key=KEY)
        record = attack(target, cohort, files, protocol, tmp_path / case, cases=[case])
        (found,) = record.cases
        ds = pydicom.dcmread(tmp_path / case / found.name)
        source = pydicom.dcmread(files.entries[case].path)
        change = np.abs(ds.pixel_array.astype(int) - source.pixel_array.astype(int)).max()
        assert 0 < change * float(source.RescaleSlope) <= 4
        assert (found.clean, found.search, found.file, found.difference) == (True, False, False, 0.0)
        if shutil.which("dciodvfy"):  # Debian's dicom3tools
            assert not conformance(tmp_path / case / found.name) - conformance(files.entries[case].path)


def run_directory(shop: Path, folder: Path, mode: str) -> Path:
    """What `harden` leaves of a model: the stripes on both paths."""
    clean = load_classifier(shop / "model.pt", arch=STRIPES)
    fusion = FusionRecord(mode, 0.6, 1.0, 1.0, referral_threshold=0.9, referral_rate=0.0)
    model = HardenedClassifier(clean, copy.deepcopy(clean), fusion, torch.zeros(2))
    description = canonical_json(describe_hardened(model)) + b"\n"
    folder.mkdir()
    (folder / "hardened.json").write_bytes(description)
    (folder / "hardened.safetensors").write_bytes(hardened_bytes(model, description))
    (folder / "protocol.yaml").write_text(TEXT)
    return folder


def evaluated(run: Path, **changes: str) -> Path:
    """The same with an evaluation of its weights on record."""
    made = factory.records()
    now = {"hardened": digest_file(run / "hardened.safetensors")} | changes
    record = dataclasses.replace(made.evaluation, **now)
    AuditLog(run / "audit.jsonl").append("evaluate.recorded", record=write_record(run / "evaluation.json", record))
    return run


@pytest.mark.parametrize("case", ["nothing", "other weights", "an evaluation off the record", "a test case by name"])
def test_test_cases_of_a_run_are_not_attacked_before_its_look_at_them_was_counted(
    shop: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    run, named = run_directory(shop, tmp_path / "run", "mixed"), ()
    if case == "other weights":
        evaluated(run, hardened="0" * 64)
    elif case == "an evaluation off the record":
        evaluated(run)
        write_record(run / "evaluation.json", dataclasses.replace(factory.records().evaluation, threat="l2"))
    elif case == "a test case by name":
        cohort = load_cohort(shop / "data", parse_protocol(TEXT, "x"), key=KEY)
        named = (cohort.record.split("test")[0].case,)
    split = "train" if named else "test"
    job = AttackJob(run, shop / "data", tmp_path / "out", None, STRIPES, split, named, "cpu", 1, None)
    with pytest.raises(RunError, match="would be a look that nobody counts"):
        run_attack(job)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["mixed", "guarded"])
def test_of_a_run_directory_the_composite_is_attacked_under_the_runs_own_protocol(
    shop: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    monkeypatch.setattr(out, "json", True)
    job = AttackJob(
        evaluated(run_directory(shop, tmp_path / "run", mode)), shop / "data", tmp_path / "out", None, STRIPES, "test",
        (), "cpu", 1, None,
    )  # fmt: skip
    run_attack(job)
    said = json.loads(capsys.readouterr().out)
    assert (said["subject"], said["n"], said["file_accuracy"]) == ("composite", 6, 0.0)
    assert read_record(tmp_path / "out" / "attack.json", AttackRecord).protocol == parse_protocol(TEXT, "x").digest
    other = dataclasses.replace(job, protocol="default", write=tmp_path / "other")
    with pytest.raises(ProtocolError, match="another input or task than the run"):
        run_attack(other)


def test_volumes_are_attacked_in_their_own_grid_and_come_back_as_nifti(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])  # right to left: the loader turns the first axis
    for n in range(24):
        array = random.integers(0, 1000, (8, 9, 10), dtype=np.int16)
        array[:4] += np.int16(40 * (n % 2))
        image = nib.Nifti1Image(array, affine)
        image.header.set_slope_inter(0.5, 1)
        (tmp_path / "data" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        nib.save(image, tmp_path / "data" / "ab"[n % 2] / f"{n}.nii.gz")
    text = TEXT.replace(
        "input: {channels: gray, intensity: {mode: window, low: -160, high: 240}}",
        "input: {dims: 3, size: [4, 9, 5], intensity: {mode: percentile, low: 1, high: 99}}",
    ).replace("cases: 6", "cases: 4")
    protocol = parse_protocol(text, "volumes.yaml")
    cohort = load_cohort(tmp_path / "data", protocol, key=KEY)
    files = stored_cases(tmp_path / "data", protocol, key=KEY)

    class Halves(torch.nn.Module):
        """The brighter the half that the label speaks of, the likelier is b."""

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            score = 300 * (inputs[:, 0, 2:].mean((1, 2, 3)) - inputs[:, 0, :2].mean((1, 2, 3)) - 0.02)
            return torch.stack([-score, score], dim=1)

    record = attack(Target("original", Halves(), "digest"), cohort, files, protocol, tmp_path / "out")
    assert record.clean_correct >= 3
    assert record.search_correct == record.file_correct < record.clean_correct
    for case in record.cases:
        assert case.counts == 8  # 4 units at a slope of 0.5
        if case.name:
            before, after = (nib.load(p) for p in (files.entries[case.case].path, tmp_path / "out" / case.name))
            change = np.abs(np.asanyarray(after.dataobj) - np.asanyarray(before.dataobj)).max()
            assert change == case.largest * 0.5 <= 4
            np.testing.assert_array_equal(before.affine, after.affine)


# --- what it refuses ---------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_refused_before_anything_is_read(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    assert_clear(run(shop, str(tmp_path)), 1, "holds something already")
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


def test_a_folder_inside_the_data_is_refused(shop: Path) -> None:
    inside = shop / "data" / "out"
    with pytest.raises(OutputError, match="lies inside --data"):
        run_attack(AttackJob(shop / "model.pt", shop / "data", inside, str(shop / "stripes.yaml"), STRIPES, "test", (),
                             "cpu", 1, None))  # fmt: skip


def test_several_findings_a_case_are_attacked_at_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["path,bright,wide,split"]
    for n in range(36):
        bright, wide = n % 2, n // 2 % 2
        image = random.integers(90, 110, (8, 8)) + 30 * bright
        image[:, 4:] += 30 * wide
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{n}.png")
        rows.append(f"{n}.png,{bright},{wide},{('train', 'val', 'test')[n // 12]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    text = TEXT.replace(
        "input: {channels: gray, intensity: {mode: window, low: -160, high: 240}}",
        "task: {kind: multilabel, classes: [bright, wide]}\n"
        "endpoints: {noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.1}]}",
    ).replace("eps: 4, unit: HU", "eps: 20, unit: counts")
    protocol = parse_protocol(text, "several.yaml")
    cohort = load_cohort(tmp_path, protocol, key=KEY)

    class Means(torch.nn.Module):
        """Bright on the left; wider where the right is brighter still."""

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            left, right = inputs[..., :4].mean((1, 2, 3)), inputs[..., 4:].mean((1, 2, 3))
            return torch.stack([left - 115 / 255, right - left - 15 / 255], dim=1)

    files = stored_cases(tmp_path, protocol, key=KEY)
    record = attack(Target("original", Means(), "digest"), cohort, files, protocol, tmp_path / "out")
    assert (record.clean_correct, record.search_correct, record.file_correct) == (6, 0, 0)
    lines = (tmp_path / "out" / "manifest.csv").read_text().splitlines()
    assert lines[0] == "path,patient,split,bright,wide"


def test_unknown_cases_and_splits_are_refused(shop: Path, tmp_path: Path) -> None:
    protocol, cohort, files, _, target = parts(shop)
    with pytest.raises(RunError, match="1 of the named cases are not in these data"):
        attack(target, cohort, files, protocol, tmp_path / "out", cases=["0123456789abcdef"])
    with pytest.raises(RunError, match="no case in the split 'exam'"):
        attack(target, cohort, files, protocol, tmp_path / "out", split="exam")
    with pytest.raises(RunError, match="has no float64"):
        attack(target, cohort, files, protocol, tmp_path / "out", device="mps")
    assert not (tmp_path / "out").exists()


def test_cases_that_can_not_be_attacked_are_all_named_or_left_out_on_record(shop: Path, tmp_path: Path) -> None:
    finer = TEXT.replace("eps: 4, unit: HU", "eps: 0.5, unit: counts")
    protocol, cohort, files, _, target = parts(shop, finer)
    with pytest.raises(DataError, match=r"6 of 6 cases can't be attacked .*\n.*larger than the budget") as caught:
        attack(target, cohort, files, protocol, tmp_path / "out")
    assert len(caught.value.problems) == 6
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_folder_can_not_be_written(shop: Path, tmp_path: Path) -> None:
    protocol, cohort, files, _, target = parts(shop)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        attack(target, cohort, files, protocol, tmp_path / "file" / "out")


def test_ctrl_c_leaves_nothing_behind_and_says_so(shop: Path, tmp_path: Path) -> None:
    withstood = TEXT.replace("eps: 4", "eps: 1")  # a case that falls ends its search
    (tmp_path / "long.yaml").write_text(withstood.replace("steps: 12", "steps: 100000, restarts: 50"))
    command = [sys.executable, "-m", "medharden", "attack", str(shop / "model.pt"), "--arch", STRIPES]
    command += ["--data", str(shop / "data"), "--protocol", "long.yaml", "--write", "out"]
    going = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    going.send_signal(signal.SIGINT)
    try:
        stdout, stderr = going.communicate(timeout=60)
    finally:
        going.kill()
    assert going.returncode == 130, stderr + stdout
    assert "nothing was written to out" in stderr
    assert [p.name for p in tmp_path.iterdir()] == ["long.yaml"]


def test_hardening_refuses_a_threat_on_stored_values_before_it_reads_anything(shop: Path, tmp_path: Path) -> None:
    fixed = {"run": tmp_path / "run", "arch": STRIPES, "device": "cpu", "batch_size": 8, "workers": 1}
    job = Job(
        shop / "model.pt", tmp_path / "absent", str(shop / "stripes.yaml"), key_file=None, pictures=False, **fixed
    )
    with pytest.raises(ProtocolError, match=r"threat.space is stored.*`medharden attack`"):
        run_all(job)
    assert not (tmp_path / "run").exists()
