"""Where DICOM volumes lie: affines as SimpleITK's, orientation and spacing as MONAI makes them of the same files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from data_helpers import dicom, protocol
from dicom_volumes import AXIAL, CORONAL, OBLIQUE, PRONE, SAGITTAL, enhanced, positions, series
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation, Spacing

from medharden.data.formats.channels import read_parts
from medharden.data.formats.files import read_case
from medharden.data.formats.image import StoredImage
from medharden.data.formats.limits import Room
from medharden.data.view.spatial import spatial
from medharden.errors import DataError
from medharden.protocol import Input, Step

TILTED_PLANE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
PLANES = {"axial": AXIAL, "prone": PRONE, "sagittal": SAGITTAL, "coronal": CORONAL, "oblique": OBLIQUE}
PLANES |= {"doubly oblique": TILTED_PLANE}
PIXELS, STEP = (0.7, 1.9), 3.25
SPEC = protocol(input=Input(dims=3)).input
FRAMES = np.cumsum(np.random.default_rng(3).integers(-40, 60, (7, 8, 9)), axis=0).astype(np.int16)
STEPS = (Step(step="orientation", axes="PIR"), Step(step="spacing", mm=(1.5, 2.0, 1.0)))


def made(folder: Path, form: str, plane: str, fall: bool, **fields: object) -> list[Path]:
    """The same volume as a series or a multi-frame file, its slices stored from either end."""
    places, frames = positions(7, PLANES[plane], STEP), FRAMES
    if fall:
        places, frames = places[::-1], frames[::-1]
    if form == "series":
        return sorted(series(folder, frames, places, PLANES[plane], PixelSpacing=list(PIXELS), **fields).iterdir())
    measures = {"PixelMeasuresSequence": {"PixelSpacing": list(PIXELS), "SliceThickness": STEP}}
    return [enhanced(folder / "e.dcm", frames, places, PLANES[plane], each=[measures] * 7, **fields)]


def read(files: list[Path]) -> StoredImage:
    with Room(2**28).file() as hold:
        return read_case(tuple(files), SPEC, hold)


def by_simpleitk(folder: Path) -> MetaTensor:
    """(1, x, y, z) as SimpleITK reads and places the series, its LPS turned to RAS."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    values = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0).astype(np.float32)
    return MetaTensor(torch.from_numpy(values[None].copy()), affine=torch.from_numpy(np.diag([-1, -1, 1, 1]) @ affine))


@pytest.mark.parametrize("fall", [False, True])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("form", ["series", "frames"])
def test_a_volume_lies_where_simpleitk_says_and_is_turned_and_resampled_as_monai_does(tmp_path, form, plane, fall):
    image = read(made(tmp_path / "v", form, plane, fall))
    theirs = by_simpleitk(tmp_path / "v" if form == "series" else made(tmp_path / "s", "series", plane, fall)[0].parent)
    canonical = Orientation(axcodes="RAS", labels=None)(theirs)
    np.testing.assert_array_equal(image.values, canonical.numpy())
    np.testing.assert_allclose(np.array(image.affine), canonical.affine.numpy(), atol=1e-4)
    wanted = Compose([Orientation(axcodes="PIR", labels=None), Spacing(pixdim=(1.5, 2.0, 1.0), mode="bilinear")])
    ours = spatial(torch.from_numpy(image.values), STEPS, image.affine)
    np.testing.assert_allclose(ours.numpy(), wanted(theirs).numpy(), atol=2e-3, rtol=1e-5)
    assert ours.shape[1:] != image.values.shape[1:]


def test_the_same_anatomy_as_nifti_gives_the_same_input(tmp_path):
    image = read(made(tmp_path / "v", "series", "sagittal", True))
    nib.save(nib.Nifti1Image(image.values[0].astype(np.int16), np.array(image.affine)), tmp_path / "same.nii.gz")
    other = read([tmp_path / "same.nii.gz"])
    ours, theirs = (spatial(torch.from_numpy(i.values), STEPS, i.affine) for i in (image, other))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-3)


@pytest.mark.parametrize("lacking", ["PixelSpacing", "ImagePositionPatient"])
def test_a_volume_without_a_place_is_read_and_refused_by_a_step_that_needs_one(tmp_path, lacking):
    places = positions(7, AXIAL, STEP)
    if lacking == "PixelSpacing":
        image = read(sorted(series(tmp_path / "v", FRAMES, places, PixelSpacing=None).iterdir()))
    else:
        image = read([dicom(tmp_path / "e.dcm", FRAMES, PixelSpacing=[1, 1])])
    assert image.affine is None
    with pytest.raises(DataError, match=r"no position in space.*ImagePositionPatient, PixelSpacing"):
        spatial(torch.from_numpy(image.values), STEPS, image.affine)


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        ([1.0, 2.0], "whose pixels are of several sizes"),
        ([0.0, 1.0], "sizes of pixels that are none"),
        (None, "gives no size of pixels .PixelSpacing. for 1 slices"),
    ],
)
def test_slices_of_several_pixel_sizes_are_no_volume(tmp_path, spacing, words):
    each = [{"PixelSpacing": [1.0, 1.0]}] * 6 + [{"PixelSpacing": spacing}]
    files = sorted(series(tmp_path / "v", FRAMES, positions(7), each=each).iterdir())
    with pytest.raises(DataError, match=words):
        read(files)


@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_multi_frame_files_are_channels_where_their_frames_lie_in_the_same_places(tmp_path, moved):
    spec = Input(dims=3, channels_from={"t1": None, "flair": None})
    first = made(tmp_path / "t1", "frames", "oblique", False)
    measures = {"PixelMeasuresSequence": {"PixelSpacing": list(PIXELS)}}
    places = positions(7, OBLIQUE, STEP)[::-1] + moved
    second = [enhanced(tmp_path / "flair.dcm", FRAMES[::-1], places, OBLIQUE, each=[measures] * 7)]
    with Room(2**28).file() as hold:
        if moved:
            with pytest.raises(DataError, match="'flair' has slices elsewhere"):
                read_parts((first, second), spec, hold)
            return
        image = read_parts((first, second), spec, hold)
    np.testing.assert_array_equal(image.values[0], image.values[1])
