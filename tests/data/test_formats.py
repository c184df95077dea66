"""Pictures, NIfTI volumes and archives: what is read, and what is refused in which words."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from data_helpers import KEY, class_folders, png, protocol, sized, window
from PIL import Image

from medharden.data import load_cohort
from medharden.data.formats.files import read_file
from medharden.data.formats.image import quiet_readers
from medharden.errors import DataError
from medharden.protocol import Input, Intensity, Task


def nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None, **header: float) -> Path:
    image = nib.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def read(path: Path, dims: int = 2):
    with quiet_readers():
        return read_file(path, dims)


def test_grey_of_8_and_16_bits_is_read_over_its_whole_range(tmp_path):
    values = np.array([[0, 1000], [40000, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        image = read(tmp_path / name)
        np.testing.assert_array_equal(image.values[0], values)
        assert image.window.high == 65535
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "b.png")
    assert read(tmp_path / "b.png").window.high == 255


def test_three_equal_channels_become_one_and_transparency_is_dropped(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([grey] * 3 + [grey // 2], -1)).save(tmp_path / "rgba.png")
    Image.fromarray(np.stack([grey, grey // 2], -1)).save(tmp_path / "la.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "p.png")
    for name in ("rgb.png", "rgba.png", "la.png", "p.png"):
        np.testing.assert_array_equal(read(tmp_path / name).values, grey[None].astype(np.float32))


def test_exif_orientation_turns_the_picture_upright(tmp_path):
    image = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").values.shape == (1, 20, 10)


def test_a_picture_is_known_by_its_content_whatever_its_name(tmp_path):
    png(tmp_path / "a.png", 1).rename(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").format == "png"


def test_bad_pictures_say_what_is_wrong(tmp_path):
    whole = png(tmp_path / "a.png", 1, (64, 64))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    page = Image.fromarray(np.zeros((4, 4), np.uint8))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    expected = {"cut": "truncated", "pages": "2 pages", "text": "is not a DICOM", "empty": "is empty"}
    for path in tmp_path.iterdir():
        if path.stem in expected:
            with pytest.raises(DataError, match=expected[path.stem]):
                read(path)


def test_a_decompression_bomb_is_refused_without_decoding(tmp_path):
    header = bytearray(png(tmp_path / "a.png", 1).read_bytes())
    header[16:24] = (30000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bytes(header))
    with pytest.raises(DataError, match="more"):
        read(tmp_path / "bomb.png")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_is_scaled_and_turned_to_canonical_axes(tmp_path, name):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    flipped = np.diag([-1.0, 1, 1, 1])
    path = nifti(tmp_path / name, values, flipped)
    with gzip.open(path) if name.endswith("gz") else path.open("rb") as stream:
        content = bytearray(stream.read())
    content[112:120] = np.array([2.0, -5.0], dtype="<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(gzip.compress(bytes(content)) if name.endswith("gz") else bytes(content))
    image = read(path, dims=3)
    np.testing.assert_array_equal(image.values[0], values[::-1] * 2.0 - 5)
    assert (image.window.low, image.window.high) == (-32768 * 2.0 - 5, 32767 * 2.0 - 5)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 1, 1)])
def test_a_nifti_of_one_slice_is_a_picture_whose_rows_run_along_the_first_axis_as_it_lies(tmp_path, shape):
    values = np.arange(35, dtype=np.int16).reshape(5, 7)
    path = nifti(tmp_path / "a.nii.gz", values.reshape(shape), np.diag([-1.0, -1, 2, 1]))
    image = read(path, dims=2)
    np.testing.assert_array_equal(image.values[0], values.T)
    assert image.affine is None
    if len(shape) > 2:  # which a protocol of volumes may mean as well
        assert read(path, dims=3).values.shape == (1, 5, 7, 1)
    else:
        with pytest.raises(DataError, match=r"single image.*input\.dims: 2"):
            read(path, dims=3)
    with pytest.raises(DataError, match=r"is a volume.*input\.dims: 3"):
        read(nifti(tmp_path / "b.nii", np.ones((5, 7, 2), np.int16)), dims=2)


def test_nifti_display_window_is_the_files_own(tmp_path):
    path = nifti(tmp_path / "a.nii", np.arange(8, dtype=np.float32).reshape(2, 2, 2), cal_min=1, cal_max=5)
    assert (read(path, 3).window.low, read(path, 3).window.high, read(path, 3).windows) == (1, 5, 1)


def test_four_dimensional_nifti_is_taken_only_with_a_single_volume(tmp_path):
    assert read(nifti(tmp_path / "a.nii", np.ones((2, 3, 4, 1), np.int16)), 3).values.shape == (1, 2, 3, 4)
    with pytest.raises(DataError, match="4 axes"):
        read(nifti(tmp_path / "b.nii", np.ones((2, 3, 4, 2), np.int16)), 3)


def test_a_truncated_or_lying_nifti_is_refused(tmp_path):
    path = nifti(tmp_path / "a.nii", np.ones((8, 8, 8), np.int16))
    (tmp_path / "cut.nii").write_bytes(path.read_bytes()[:600])
    huge = bytearray(path.read_bytes())
    huge[40:56] = np.array([3, 32000, 32000, 32000, 1, 1, 1, 1], dtype="<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(bytes(huge))
    with pytest.raises(DataError, match="truncated"):
        read(tmp_path / "cut.nii", 3)
    with pytest.raises(DataError, match="more than"):
        read(tmp_path / "huge.nii", 3)


def test_volume_and_picture_in_the_wrong_dimensions_name_the_setting(tmp_path):
    with pytest.raises(DataError, match=r"set input\.dims: 3"):
        read(nifti(tmp_path / "a.nii", np.ones((2, 2, 2), np.int16)))
    with pytest.raises(DataError, match=r"set input\.dims: 2"):
        read(png(tmp_path / "a.png", 1), 3)


def test_not_a_number_in_a_volume_is_counted_for_the_reader(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for n in range(6):
            values = rng.normal(size=(4, 4, 4)).astype(np.float32)
            if (name, n) == ("a", 0):
                values.flat[:12] = np.nan
            nifti(tmp_path / name / f"{n}.nii.gz", values)
    spec = Input(dims=3, intensity=Intensity(mode="percentile", low=0.0, high=100.0))
    with pytest.raises(DataError, match="holds 12 values that are not finite") as caught:
        load_cohort(tmp_path, protocol(input=spec), key=KEY)
    assert len(caught.value.problems) == 1


def archive(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def medmnist(
    shape: tuple[int, ...], dtype: type = np.uint8, counts: tuple[int, ...] = (12, 6, 6)
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in zip(("train", "val", "test"), (12, 6, 6), strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, *shape)).astype(dtype)
        arrays[f"{split}_labels"] = (np.arange(n) % 3).reshape(n, 1).astype(np.uint8)
    return arrays


@pytest.mark.parametrize(
    ("shape", "dims", "expected"), [((6, 7), 2, (1, 6, 7)), ((6, 7, 3), 2, (3, 6, 7)), ((4, 5, 6), 3, (1, 4, 5, 6))]
)
def test_archives_of_grey_colour_and_volumes_are_read_in_order(tmp_path, shape, dims, expected):
    arrays = medmnist(shape)
    cohort = load_cohort(archive(tmp_path / "a.npz", **arrays), protocol(input=Input(dims=dims)), key=KEY)
    assert cohort.inputs.shape == (24, *expected)
    assert cohort.classes == ("0", "1", "2")
    first = arrays["test_images"][0] / np.float32(255)
    first = np.moveaxis(first, -1, 0) if expected[0] == 3 else first[None]
    np.testing.assert_allclose(cohort.inputs[cohort.indices("test")[0]], first, atol=1e-7)
    assert [c.label for c in cohort.cases[:4]] == [0, 1, 2, 0]


def test_archive_larger_than_the_memory_limit_gives_the_same_cohort(tmp_path):
    path = archive(tmp_path / "a.npz", **medmnist((16, 16)))
    whole = load_cohort(path, protocol(), key=KEY)
    mapped = load_cohort(path, protocol(), key=KEY, memory_limit=1000, scratch=tmp_path)
    np.testing.assert_array_equal(whole.inputs, mapped.inputs)
    assert whole.record == mapped.record
    del mapped
    assert os.listdir(tmp_path) == ["a.npz"]


class Bomb:
    def __reduce__(self):
        return (os.mkdir, (os.environ["BOMB"],))


def test_a_pickle_inside_an_archive_never_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    arrays = medmnist((4, 4))
    arrays["test_images"] = np.array([Bomb()] * 6, dtype=object)
    path = archive(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match="never unpickled"):
        load_cohort(path, protocol(), key=KEY)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as out:
        out.writestr("train_images.npy", pickle.dumps(Bomb()))
    with pytest.raises(DataError):
        load_cohort(tmp_path / "b.npz", protocol(), key=KEY)
    assert not (tmp_path / "exploded").exists()


def test_an_array_that_declares_another_size_than_it_has_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("train_images.npy", buffer.getvalue() + b"\0" * 100)
    with pytest.raises(DataError, match="another size than it declares"):
        load_cohort(tmp_path / "a.npz", protocol(), key=KEY)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "multi-label"),
        ({"train_labels": np.zeros((5, 1), np.uint8)}, "expected 12 labels"),
        ({"train_labels": np.zeros(12, np.float32)}, "class numbers"),
        ({"train_images": np.zeros((12, 4, 5, 6), np.uint8)}, "set input.dims: 3"),
    ],
)
def test_archives_of_another_kind_say_what_was_expected(tmp_path, change, match):
    path = archive(tmp_path / "a.npz", **(medmnist((4, 4)) | change))
    with pytest.raises(DataError, match=match):
        load_cohort(path, protocol(), key=KEY)


def test_archive_classes_are_named_by_the_protocol_in_the_order_of_the_labels(tmp_path):
    path = archive(tmp_path / "a.npz", **medmnist((4, 4)))
    named = protocol(task=Task(classes=("x", "y", "z")))
    assert load_cohort(path, named, key=KEY).classes == ("x", "y", "z")
    with pytest.raises(DataError, match=r"task.classes has 2 names"):
        load_cohort(path, protocol(task=Task(classes=("x", "y"))), key=KEY)
    with pytest.raises(DataError, match=r"\['x', 'y', 'z', 'w'\]; the data have \['x', 'y', 'z'\]"):
        load_cohort(path, protocol(task=Task(classes=("x", "y", "z", "w"))), key=KEY)


def test_floating_point_images_need_a_window_named_in_the_protocol(tmp_path):
    path = archive(tmp_path / "a.npz", **medmnist((4, 4), np.float32))
    with pytest.raises(DataError, match="mode 'window' or 'percentile'"):
        load_cohort(path, protocol(), key=KEY)
    cohort = load_cohort(path, protocol(input=Input(intensity=window(0.0, 255.0))), key=KEY)
    assert np.asarray(cohort.inputs).max() <= 1


def test_auto_uses_colour_for_all_as_soon_as_one_case_has_it(tmp_path):
    class_folders(tmp_path)
    grey = load_cohort(tmp_path, protocol(), key=KEY)
    png(tmp_path / "cat" / "0.png", 77, colour=True)
    mixed = load_cohort(tmp_path, protocol(), key=KEY)
    forced = load_cohort(tmp_path, protocol(input=Input(channels="gray")), key=KEY)
    assert (grey.record.shape, mixed.record.shape, forced.record.shape) == ((1, 12, 10), (3, 12, 10), (1, 12, 10))
    np.testing.assert_array_equal(mixed.inputs[5], np.repeat(grey.inputs[5], 3, axis=0))


def test_percentiles_are_taken_case_by_case(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        for n in range(6):
            png(tmp_path / name / f"{n}.png", 10 * ord(name) + n)
            dim = rng.integers(0, 20 + 30 * n, (12, 10)).astype(np.uint8)
            Image.fromarray(dim).save(tmp_path / name / f"{n}.png")
    cohort = load_cohort(tmp_path, sized(12, 10, intensity=Intensity(mode="percentile", low=5.0, high=95.0)), key=KEY)
    assert (np.asarray(cohort.inputs).reshape(12, -1).min(1) == 0).all()
    assert (np.asarray(cohort.inputs).reshape(12, -1).max(1) == 1).all()
