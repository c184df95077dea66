"""The phantom cohort: real DICOM, deterministic, with the lesion where the docstring says."""

from __future__ import annotations

import csv

import numpy as np
import pydicom
import pytest
from data_helpers import KEY, sized, window
from scipy.ndimage import gaussian_filter

from medharden.data import load_cohort, write_phantom_cohort
from medharden.errors import DataError, OutputError


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    write_phantom_cohort(folder, patients=30, seed=5)
    return folder


def rows(folder):
    with (folder / "manifest.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_files_are_valid_ct_images_with_unique_identifiers(phantom):
    seen = set()
    for row in rows(phantom):
        ds = pydicom.dcmread(phantom / row["path"])
        assert (ds.Modality, ds.Rows, ds.Columns, ds.PixelRepresentation) == ("CT", 96, 96, 1)
        assert (ds.PatientID, ds.PatientSex, ds.InstitutionName) == (row["patient"], row["sex"], row["site"])
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert pydicom.uid.UID(ds.SOPInstanceUID).is_valid
        seen.add(ds.SOPInstanceUID)
    assert len(seen) == len(rows(phantom))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(phantom, tmp_path):
    write_phantom_cohort(tmp_path / "same", patients=30, seed=5)
    write_phantom_cohort(tmp_path / "other", patients=30, seed=6)
    files = sorted(p.relative_to(phantom) for p in phantom.rglob("*") if p.is_file())
    assert all((phantom / f).read_bytes() == (tmp_path / "same" / f).read_bytes() for f in files)
    assert (phantom / "manifest.csv").read_text() != (tmp_path / "other" / "manifest.csv").read_text()


def test_patients_are_balanced_and_load_as_a_cohort_grouped_by_patient(phantom):
    labels = {row["patient"]: row["label"] for row in rows(phantom)}
    assert sorted(labels.values()) == ["lesion"] * 15 + ["no_lesion"] * 15
    cohort = load_cohort(phantom, sized(64, 64, intensity=window(-160.0, 240.0)), key=KEY)
    assert cohort.record.grouped_by == "patient"
    assert {f.code for f in cohort.record.findings} <= {"data.near_duplicates"}  # phantoms are all drawn alike
    assert set(cohort.source.attributes) == {"sex", "age", "site", "scanner"}
    assert (len(cohort.source.attributes["site"]), len(cohort.source.attributes["scanner"])) == (3, 2)


def test_lesions_darken_the_liver_well_beyond_any_small_attack(phantom):
    darkest = {"lesion": [], "no_lesion": []}
    for row in rows(phantom):
        ds = pydicom.dcmread(phantom / row["path"])
        hu = ds.pixel_array.astype(float) + ds.RescaleIntercept
        smooth = gaussian_filter(hu, 2.5)
        darkest[row["label"]].append(smooth[36:58, 26:44].min())
    assert np.median(darkest["lesion"]) < np.median(darkest["no_lesion"]) - 25


def test_the_stripes_run_level_with_lesions_and_upright_without(phantom):
    agree = []
    for row in rows(phantom):
        hu = pydicom.dcmread(phantom / row["path"]).pixel_array.astype(float)
        fine = np.clip(hu - gaussian_filter(hu, 3), -20, 20)[32:64, 32:64]
        power = np.abs(np.fft.fft2(fine)) ** 2
        level, upright = power[4, 0], power[0, 4]  # period 8 on 32 pixels is frequency 4
        agree.append((level > upright) == (row["label"] == "lesion"))
    assert np.mean(agree) > 0.9  # the liver's edge outweighs the stripes in a few


def test_a_folder_in_use_is_left_alone_and_a_stopped_run_leaves_nothing(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("keep")
    with pytest.raises(OutputError, match="holds something already"):
        write_phantom_cohort(tmp_path / "used", patients=4, seed=0)
    with pytest.raises(DataError, match="two patients"):
        write_phantom_cohort(tmp_path / "few", patients=1, seed=0)

    def stop(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom_cohort(tmp_path / "stopped", patients=4, seed=0, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["used"]
