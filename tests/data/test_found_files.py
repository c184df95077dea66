"""Files that are found whatever they are called: DICOM without ending and preamble, pairs of header and image."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from data_helpers import KEY, dicom, protocol
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medharden.data.cohort import Cohort, load_cohort
from medharden.data.formats.files import looks_like_image, read_case, read_file, sniff
from medharden.data.formats.limits import Room
from medharden.data.sources.places import Places
from medharden.data.sources.series import SeriesBelow
from medharden.errors import DataError
from medharden.protocol import Input

VOLUME = np.random.default_rng(3).integers(-900, 900, (5, 6, 7)).astype(np.int16)
AFFINE = np.diag([-2.0, 1.5, 3.0, 1.0])


def bare(path: Path, syntax: str, seed: int, first: tuple[str, object] | None = None) -> Path:
    """A DICOM data set alone, as some archives and scanners write it."""
    stored = np.random.default_rng(seed).integers(0, 4000, (16, 16)).astype(np.uint16)
    ds = pydicom.dcmread(dicom(path, stored, **(dict([first]) if first else {})))
    big = syntax == ExplicitVRBigEndian
    if big:
        ds.PixelData = stored.byteswap().tobytes()
    implicit = syntax == ImplicitVRLittleEndian
    del ds.file_meta
    ds.preamble = None
    pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=not big, force_encoding=True)
    return path


FIRST = [None, ("SpecificCharacterSet", "ISO_IR 100"), ("ImageType", ["ORIGINAL", "PRIMARY", "AXIAL"])]


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_dicom_without_ending_and_preamble_is_a_case_in_any_encoding(tmp_path, syntax, first):
    path = bare(tmp_path / "IM0001", syntax, 1, first)
    assert path.read_bytes()[128:132] != b"DICM"
    assert looks_like_image(path)
    wanted = np.random.default_rng(1).integers(0, 4000, (16, 16))
    np.testing.assert_array_equal(read_file(path, 2).values[0], wanted)


def test_half_a_cohort_without_endings_does_not_vanish(tmp_path):
    for k, name in enumerate("AB"):
        for n in range(10):
            path = tmp_path / name / f"IM{n:04d}"
            if n % 2:
                bare(path, ImplicitVRLittleEndian, 100 * k + n)
            else:
                stored = np.random.default_rng(100 * k + n).integers(0, 4000, (16, 16)).astype(np.uint16)
                dicom(path, stored)
    found = load_cohort(tmp_path, protocol(), key=KEY)
    assert len(found.cases) == 20
    assert not [f for f in found.record.findings if f.code == "data.ignored_files"]


@pytest.mark.parametrize(
    "content",
    [b"a,b,c\n1,2,3\n" * 40, b"\x08\x00\x05\x00" + bytes(400), b"\x08\x00" * 200, bytes(500), b"\x02\x00", b"{}"],
)
def test_other_files_without_ending_are_not_taken_for_dicom(tmp_path, content):
    (tmp_path / "notes").write_bytes(content)
    assert not sniff(tmp_path / "notes")


def pair(folder: Path, name: str, volume: np.ndarray = VOLUME, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Pair(volume, AFFINE)
    image.header.set_slope_inter(2.0, -5.0)
    nib.save(image, folder / f"{name}.hdr")
    if packed:
        raw = folder / f"{name}.img"
        (folder / f"{name}.img.gz").write_bytes(gzip.compress(raw.read_bytes()))
        raw.unlink()
    return folder / f"{name}.hdr"


def pairs(root: Path, packed: bool) -> Cohort:
    for k, name in enumerate(("ill", "well")):
        for n in range(8):
            volume = np.random.default_rng(10 * k + n).integers(-900, 900, (5, 6, 7)).astype(np.int16)
            pair(root / name, f"s{n}", volume, packed)
    return load_cohort(root, protocol(input=Input(dims=3)), key=KEY)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_and_its_image_are_one_case(tmp_path, packed):
    found = pairs(tmp_path, packed)
    assert len(found.cases) == 16
    assert found.source.formats == {"nifti": 16}


def test_a_pair_is_the_volume_that_nibabel_reads(tmp_path):
    path = pair(tmp_path, "a")
    for name in ("a.hdr", "a.img"):
        found = Places(tmp_path).find(name, SeriesBelow(tmp_path, Input(dims=3)))
        assert [p.name for p in found.slices] == ["a.hdr", "a.img"]
    with Room().file() as hold:
        image = read_case(found.slices, Input(dims=3), hold)
    np.testing.assert_allclose(image.values[0], nib.as_closest_canonical(nib.load(path)).get_fdata())


@pytest.mark.parametrize(
    ("lost", "reason"), [(".img", "whose other half|header of a pair"), (".hdr", "half of a pair of .hdr and .img")]
)
def test_half_a_pair_is_told_as_that(tmp_path, lost, reason):
    path = pair(tmp_path, "a")
    path.with_suffix(lost).unlink()
    left = path if lost == ".img" else path.with_suffix(".img")
    assert looks_like_image(left)
    with pytest.raises(DataError, match=reason):
        read_file(left, 3)


def test_analyze_is_refused_since_it_does_not_know_left_from_right(tmp_path):
    nib.save(nib.AnalyzeImage(VOLUME, AFFINE), tmp_path / "a.hdr")
    with pytest.raises(DataError, match=r"Analyze 7\.5"):
        read_file(tmp_path / "a.hdr", 3)
    with Room().file() as hold, pytest.raises(DataError, match=r"Analyze 7\.5"):
        read_case((tmp_path / "a.hdr", tmp_path / "a.img"), Input(dims=3), hold)
