"""What `protocol new` proposes where a protocol without it could not read the data; and that it then can."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from command import assert_clear, medharden
from data_helpers import KEY, codes, dicom, listed, manifest, png

from medharden.cli.drafted import Draft, run_new
from medharden.data.cohort import Cohort, load_cohort
from medharden.errors import DataError
from medharden.models import timm_module
from medharden.protocol import Protocol, load_protocol


@pytest.fixture
def new(tmp_path: Path):
    (tmp_path / "key").write_bytes(KEY)

    def written(data: Path, name: str = "Mine_of 2026.yaml") -> tuple[str, Protocol, Cohort]:
        run_new(Draft(data, None, tmp_path / name, None, "default", True, 1, tmp_path / "key", 2**30))
        protocol = load_protocol(tmp_path / name)
        return (tmp_path / name).read_text(), protocol, load_cohort(data, protocol, key=KEY)

    return written


def findings(root: Path, cells: list[str]) -> Path:
    rows = []
    for n in range(60):
        png(root / "train" / f"patient{n // 2:05d}" / "study1" / f"view{n % 2}.png", n)
        said = [f"{(n + k) % 2}.0" for k in range(2)]
        if n % 5 == 0:
            said[n % 2] = cells[n % len(cells)]
        path = f"set/train/patient{n // 2:05d}/study1/view{n % 2}.png"
        rows.append({"Path": path, "Sex": "MF"[n % 2], "No Finding": "", "Edema": said[0], "Mass": said[1]})
    return manifest(root, rows, "train.csv")


@pytest.mark.parametrize(
    ("cells", "uncertain", "missing"),
    [(["-1.0", ""], "mask", "mask"), (["-1"], "mask", "refuse"), (["1.0"], "refuse", "refuse")],
)
def test_findings_in_columns_are_masked_where_blanks_or_minus_one_were_seen(new, tmp_path, cells, uncertain, missing):
    text, protocol, cohort = new(findings(tmp_path / "data", cells))
    assert (protocol.task.kind, protocol.task.classes) == ("multilabel", ("Edema", "Mass"))
    assert (protocol.task.uncertain, protocol.task.missing) == (uncertain, missing)
    assert protocol.splits.patient_from is not None
    assert (len(cohort.cases), cohort.record.grouped_by) == (60, "patient")
    assert len({case.patient for case in cohort.cases}) == 30
    assert ("uncertain: mask  # TO DO" in text) == (uncertain == "mask")


@pytest.mark.parametrize("word", ["ANONYMOUS", "0", "nan", "Unknown"])
def test_a_word_that_stands_for_no_patient_is_not_said_to_name_one(new, tmp_path, word):
    rows = []
    for n in range(40):
        png(tmp_path / "data" / f"{n}.png", n)
        rows.append({"path": f"{n}.png", "label": "ab"[n % 2], "patient": word})
    text, _, cohort = new(manifest(tmp_path / "data", rows))
    assert "Cases name patients" not in text
    assert "data.patient_placeholders" in codes(cohort)


def test_a_class_whose_word_says_no_label_elsewhere_is_told_and_may_be_named(tmp_path):
    for n in range(40):
        png(tmp_path / "data" / f"{n}.png", n)
    rows = [{"path": f"{n}.png", "label": ("none", "mass")[n % 2]} for n in range(40)]
    given = ("protocol", "new", "--data", manifest(tmp_path / "data", rows), "--out", "mine.yaml", "--yes")
    assert_clear(medharden(*given, cwd=tmp_path), 1, "no two classes, but mass", "task.classes, given by --like")
    like = "schema_version: 1\nname: a\ntitle: A\nintended_use: T.\nthreat: {eps: 1, unit: 1/255}\n"
    (tmp_path / "like.yaml").write_text(like + "task: {classes: [none, mass]}\n")
    assert_clear(medharden(*given, "--like", "like.yaml", cwd=tmp_path), 0, "40 cases")
    assert set(load_protocol(tmp_path / "mine.yaml").task.classes) == {"none", "mass"}


@pytest.mark.parametrize("joined", ["Mass|Edema", "Mass, Edema", "['Mass', 'Edema']"])
def test_a_column_that_lists_findings_makes_the_task_one_of_several(new, tmp_path, joined):
    named = ["No Finding", "Mass", "Edema", joined]
    rows = listed(tmp_path / "data", 40, label=lambda n: named[n % 4])
    _, protocol, cohort = new(manifest(tmp_path / "data", rows, "a.csv"))
    assert protocol.task.classes == ("Edema", "Mass")
    assert sorted({case.label for case in cohort.cases}) == [(), (0,), (0, 1), (1,)]


def test_modalities_of_one_examination_are_channels_and_segmentations_no_cases(new, tmp_path):
    rng = np.random.default_rng(0)
    for n in range(24):
        folder = tmp_path / "data" / ("HGG", "LGG")[n % 2] / f"Brats18_TCIA{n:02d}_1"
        folder.mkdir(parents=True)
        for what in ("t1", "flair", "t1ce", "seg"):
            volume = nib.Nifti1Image(rng.integers(0, 900, (8, 7, 6)).astype(np.int16), np.eye(4))
            nib.save(volume, folder / f"{folder.name}_{what}.nii.gz")
    text, protocol, cohort = new(tmp_path / "data")
    assert {c.name: c.files for c in protocol.input.channels_from} == {
        what: f"*_{what}.nii.gz" for what in ("flair", "t1", "t1ce")
    }
    assert cohort.record.shape == (3, 8, 7, 6)
    assert len(cohort.cases) == 24
    assert "in the model's order" in text


def test_masks_beside_pictures_are_left_out(new, tmp_path):
    for n in range(40):
        png(tmp_path / "data" / "ab"[n % 2] / f"x ({n}).png", n)
        png(tmp_path / "data" / "ab"[n % 2] / f"x ({n})_mask.png", 99 + n)
    _, protocol, cohort = new(tmp_path / "data")
    assert protocol.cases.exclude == ("*_mask.*",)
    assert len(cohort.cases) == 40


@pytest.mark.parametrize("single", [0, 3])
def test_of_films_whose_frames_lie_nowhere_one_frame_is_taken(new, tmp_path, single):
    rng = np.random.default_rng(0)
    for n in range(30):
        frames = rng.integers(0, 256, (12, 10) if single and n % single == 0 else (5, 12, 10)).astype(np.uint8)
        dicom(tmp_path / "data" / "ab"[n % 2] / f"{n}.dcm", frames, PatientID=f"P{n}")
    text, protocol, cohort = new(tmp_path / "data")
    assert (protocol.input.dims, protocol.input.frames) == (2, "middle")
    assert (len(cohort.cases), cohort.record.shape) == (30, (1, 12, 10))
    assert "`all` makes each a case" in text


def test_combinations_of_findings_are_no_classes_unless_the_protocol_names_them(tmp_path):
    named = ["none seen", "Mass", "Edema", "Mass / Edema"]
    table = manifest(tmp_path, listed(tmp_path, 40, label=lambda n: named[n % 4]), "a.csv")
    default = load_protocol("default")
    with pytest.raises(DataError, match="1 of the 4 different labels name several of the others at once"):
        load_cohort(table, default, key=KEY)
    task = default.task.model_copy(update={"classes": tuple(named)})
    assert load_cohort(table, default.model_copy(update={"task": task}), key=KEY).classes == tuple(named)


@pytest.mark.parametrize("form", ["images_{:03d}", "sub-{:02d}", "patient{:05d}", "Case {}", "part{}"])
def test_folders_that_are_parts_or_patients_are_no_classes_unless_the_protocol_names_them(tmp_path, form):
    names = tuple(form.format(n) for n in (1, 2))
    for k, name in enumerate(names):
        for n in range(12):
            png(tmp_path / name / f"{n}.png", 100 * k + n)
    default = load_protocol("default")
    with pytest.raises(DataError, match="numbered as parts of an archive or as patients are"):
        load_cohort(tmp_path, default, key=KEY)
    task = default.task.model_copy(update={"classes": names})
    cohort = load_cohort(tmp_path, default.model_copy(update={"task": task}), key=KEY)
    assert len(cohort.cases) == 24
    assert "data.no_patients" in codes(cohort)


def series_tree(root: Path, cases: int = 24, each: int = 1, count: int = 5, **fields) -> None:
    """Patient, study and series folders of single-frame slices below class folders, named without their order."""
    rng = np.random.default_rng(0)
    for n in range(cases):
        for s in range(each):
            for z, name in enumerate(rng.permutation(count + s)):
                header = {
                    "PatientID": f"P{n}",
                    "StudyInstanceUID": f"1.2.{n}",
                    "SeriesInstanceUID": f"1.2.{n}.{s}",
                    "ImagePositionPatient": [0.0, 0.0, 2.5 * z],
                    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                    "PixelSpacing": [1.0, 1.0],
                    "Modality": "CT",
                }
                stored = rng.integers(-1000, 1000, (8, 7)).astype(np.int16)
                place = root / "ab"[n % 2] / f"p{n}" / f"series{s}" / f"IM{name:04d}"
                dicom(place, stored, **{k: v for k, v in (header | fields).items() if v is not None})


@pytest.mark.parametrize(("modality", "each", "rule", "cases"), [("CT", 1, "one", 24), ("MR", 2, "largest", 24)])
def test_slices_of_series_are_proposed_as_volumes_and_said_how_to_be_slices(new, tmp_path, modality, each, rule, cases):
    series_tree(tmp_path / "data", each=each, Modality=modality)
    text, protocol, cohort = new(tmp_path / "data")
    assert (protocol.input.dims, protocol.input.volume.series) == (3, rule)
    assert (len(cohort.cases), cohort.record.shape[0]) == (cases, 1)
    assert f"{24 * sum(range(5, 5 + each))} files are slices of 24 series" in text
    assert "write `dims: 2`" in text
    done = medharden("inspect", "--data", "data", "--protocol", "Mine_of 2026.yaml", cwd=tmp_path)
    assert_clear(done, 0, "24 cases")


def test_two_series_of_one_size_are_each_a_case(new, tmp_path):
    series_tree(tmp_path / "data", each=1)
    for path in sorted((tmp_path / "data").rglob("IM*")):
        stored = pydicom.dcmread(path)
        stored.SeriesInstanceUID += ".9"
        stored.PixelData = bytes(reversed(stored.PixelData))
        (path.parent.parent / "again").mkdir(exist_ok=True)
        stored.save_as(path.parent.parent / "again" / path.name)
    _, protocol, cohort = new(tmp_path / "data")
    assert (protocol.input.dims, protocol.input.volume.series, len(cohort.cases)) == (3, "each", 48)


@pytest.mark.parametrize(
    "fields", [{"ImagePositionPatient": None}, {"SeriesInstanceUID": None, "ImagePositionPatient": None}]
)
def test_views_without_positions_stay_pictures(new, tmp_path, fields):
    series_tree(tmp_path / "data", Modality="DX", **fields)
    text, protocol, cohort = new(tmp_path / "data")
    assert (protocol.input.dims, len(cohort.cases)) == (2, 120)
    assert "slices of" not in text


def test_a_model_of_slices_has_them_proposed_as_slices(tmp_path):
    series_tree(tmp_path / "data")
    torch.manual_seed(0)
    network = timm_module().create_model("resnet10t", num_classes=2, in_chans=1)
    torch.save({"arch": "resnet10t", "state_dict": network.state_dict()}, tmp_path / "m.pt")
    (tmp_path / "key").write_bytes(KEY)
    model, target = tmp_path / "m.pt", tmp_path / "p.yaml"
    run_new(Draft(tmp_path / "data", model, target, "resnet10t", "default", True, 1, tmp_path / "key", 2**30))
    assert load_protocol(target).input.dims == 2
