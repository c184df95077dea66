"""Files and folders that somebody names, as cases: slices of a series, channels, frames, pictures one by one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_helpers import dicom, png
from dicom_volumes import positions, series

from medharden.data import given_cases, read_single
from medharden.data.formats.files import read_file
from medharden.errors import DataError
from medharden.protocol import Input, Intensity

FRAMES = np.random.default_rng(0).integers(0, 900, (4, 6, 5)).astype(np.int16)
VOLUMES = Input(dims=3, intensity=Intensity(mode="window", low=0, high=1000))
SHAPE = (1, 5, 6, 4)


def nifti(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 900, (5, 6, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def test_a_folder_of_slices_is_a_volume_and_so_are_the_slices_named_one_by_one(tmp_path: Path) -> None:
    folder = series(tmp_path / "SE1", FRAMES, positions(4), names=["c", "a", "d", "b"])
    [by_folder] = given_cases([folder], VOLUMES)
    [by_files] = given_cases(sorted(folder.iterdir(), reverse=True), VOLUMES)
    assert by_folder.name == by_files.name == str(folder)
    volume, other = (read_single(case, VOLUMES, SHAPE).input for case in (by_folder, by_files))
    assert volume.shape == SHAPE
    assert np.array_equal(volume.numpy(), other.numpy())
    one = given_cases([folder / "a"], VOLUMES)
    with pytest.raises(DataError, match="single frame"):
        read_single(one[0], VOLUMES, SHAPE)


def test_an_examination_of_several_series_is_refused_or_taken_apart_without_a_word_of_its_header(
    tmp_path: Path,
) -> None:
    for n in (1, 2):
        names = [f"{n}{k}" for k in range(4)]
        series(tmp_path / "PA1", FRAMES, positions(4), uid=f"1.2.840.{n}", names=names, StudyInstanceUID="1.9")
    [refused] = given_cases([tmp_path / "PA1"], VOLUMES)
    assert "2 series in one examination" in refused.problem
    with pytest.raises(DataError, match="2 series"):
        read_single(refused, VOLUMES, SHAPE)
    each = VOLUMES.model_copy(update={"volume": VOLUMES.volume.model_copy(update={"series": "each"})})
    cases = given_cases([tmp_path / "PA1"], each)
    assert [case.name for case in cases] == [str(tmp_path / "PA1" / "10"), str(tmp_path / "PA1" / "20")]
    assert not any("840" in case.name for case in cases)


def test_images_are_put_together_as_channels_by_pattern_or_by_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    files = [
        nifti(tmp_path / f"p{n}" / f"p{n}_{what}.nii.gz", 10 * n + k)
        for n in (1, 2)
        for k, what in enumerate(("t1", "flair"))
    ]
    named = Input.model_validate(
        {"dims": 3, "intensity": VOLUMES.intensity}
        | {"channels_from": {"t1": "*_t1.nii.gz", "flair": "*_flair.nii.gz"}}
    )
    listed = Input.model_validate(
        {"dims": 3, "intensity": VOLUMES.intensity} | {"channels_from": {"t1": None, "flair": None}}
    )
    cases = given_cases([tmp_path], named)
    assert [case.name for case in cases] == [str(tmp_path / f"p{n}/p{n}_t1.nii.gz") for n in (1, 2)]
    case = read_single(cases[1], named, (2, 5, 6, 4)).input
    for channel, path in zip(case, files[2:], strict=True):
        assert np.allclose(channel.numpy(), read_file(path, 3).values[0] / 1000)
    assert len(given_cases(files[::-1], named)) == 2
    assert [c.parts for c in given_cases(files, listed)] == [((files[0],), (files[1],)), ((files[2],), (files[3],))]
    assert "one of 1 images; the model takes 2 as channels" in given_cases(files[:3], listed)[1].problem
    assert "name them one by one" in given_cases([tmp_path], listed)[0].problem
    (tmp_path / "p1" / "p1_flair.nii.gz").unlink()
    assert "no file for the channel 'flair'" in given_cases([tmp_path], named)[0].problem


def test_each_frame_is_a_case_where_frames_are(tmp_path: Path) -> None:
    path = dicom(tmp_path / "cine.dcm", FRAMES)
    spec = Input(frames="all", intensity=VOLUMES.intensity)
    cases = given_cases([path, tmp_path], spec)
    assert [case.name for case in cases[:4]] == [f"{path}#{n}" for n in range(1, 5)]
    assert len(cases) == 8
    assert np.allclose(read_single(cases[2], spec, (1, 6, 5)).input[0], FRAMES[2] / 1000)


def test_pictures_stay_one_by_one_and_what_is_not_there_is_told(tmp_path: Path) -> None:
    files = [png(tmp_path / "in" / f"{n}.png", n) for n in range(3)]
    assert [case.name for case in given_cases([files[2], files[0]], Input())] == [str(files[2]), str(files[0])]
    assert [case.name for case in given_cases([tmp_path], Input())] == [str(path) for path in files]
    (tmp_path / "empty").mkdir()
    assert given_cases([tmp_path / "empty"], Input())[0].problem == "is a folder without an image"
    for spec in (Input(), VOLUMES):
        [missing] = given_cases([tmp_path / "none.dcm"], spec)
        with pytest.raises(DataError, match="can't be read"):
            read_single(missing, spec, SHAPE)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    png(tmp_path / "elsewhere" / "a.png", 1)
    png(tmp_path / "in" / "b.png", 2)
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert [case.name for case in given_cases([tmp_path / "in"], Input())] == [str(tmp_path / "in" / "b.png")]
