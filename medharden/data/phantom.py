"""A synthetic CT cohort with one robust and one fragile sign of disease, for demonstrations and tests."""

from __future__ import annotations

import csv
import io
import random
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medharden.errors import DataError, OutputError
from medharden.record import Progress

__all__ = ["write_phantom_cohort"]

_SIZE = 96
_INTERCEPT = -1024
_SITES = ("Northfield General", "Lakeside Clinic", "Harbour Hospital")
_SCANNERS = (("Imagina", "Helix 64", 0.5), ("Tomora", "Vista 128", 0.75))  # maker, model, smoothness in pixels
_NOISE = 12.0
_TEXTURE = 4.0
_TEXTURE_PERIOD = 8.0
_COLUMNS = ("path", "label", "patient", "sex", "age", "site", "scanner")

Slice = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Patient:
    """Who a fictitious patient is, drawn once."""

    number: int
    lesion: bool
    sex: str
    age: int
    site: str
    scanner: tuple[str, str, float]
    slices: int

    @property
    def identifier(self) -> str:
        return f"PHANTOM-{self.number:04d}"


def write_phantom_cohort(folder: Path, *, patients: int, seed: int, progress: Progress | None = None) -> None:
    """Writes CT DICOM slices of fictitious patients, and their manifest; half the patients have a liver lesion.

    Each patient has one or two axial slices of 96 x 96 pixels in HU: body with a fat rim, spine, liver, spleen and
    kidneys of varied geometry, and noise of about 12 HU whose smoothness depends on the scanner. Two things tell the
    classes apart. The lesion, an ellipse in the liver 8 to 16 pixels across and 45 to 70 HU below it, is what a
    reader would see; no attack of a few HU can hide it. A faint stripe texture of 4 HU all over the body, level in
    patients with a lesion and upright in the others, stands for what scanners and reconstruction kernels leave
    behind in real data: a classifier gladly learns it, and an attack of 4 HU erases it. The data are made to show
    this one mechanism; nothing about real patients follows from them.

    Args:
        folder: a new or empty folder; it appears whole or not at all.
        patients: how many, at least 2.
        seed: the same seed gives the same files.
        progress: called with `("phantom", done, patients)`.

    Raises:
        DataError: fewer than two patients.
        OutputError: the folder holds something already, or can't be written.
    """
    if patients < 2:
        raise DataError(f"a phantom cohort needs two patients or more, got {patients}")
    beside: Path | None = None
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder.name} holds something already; expected a new or empty folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        _fill(beside, patients, seed, progress)
        beside.chmod(0o755)
        beside.replace(folder)
        beside = None
    except OSError as error:
        raise OutputError(f"{folder.name} could not be written: {error.strerror}") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _fill(folder: Path, patients: int, seed: int, progress: Progress | None) -> None:
    (folder / "slices").mkdir()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for number in range(1, patients + 1):
        rng = np.random.default_rng([seed, number])
        uids = random.Random(f"{seed}:{number}")  # noqa: S311 - identifiers of phantoms, no secret
        patient = _draw_patient(number, rng)
        study, series = _uid(uids), _uid(uids)
        anatomy = rng.integers(2**63)
        for slice_number in range(1, patient.slices + 1):
            image = _draw_slice(patient, np.random.default_rng(anatomy), rng)
            name = f"slices/phantom-{number:04d}-{slice_number}.dcm"
            _dicom(image, patient, slice_number, (study, series, _uid(uids))).save_as(
                folder / name, enforce_file_format=True
            )
            label = "lesion" if patient.lesion else "no_lesion"
            scanner = f"{patient.scanner[0]} {patient.scanner[1]}"
            table.writerow((name, label, patient.identifier, patient.sex, patient.age, patient.site, scanner))
        if progress is not None:
            progress("phantom", number, patients)
    (folder / "manifest.csv").write_text(text.getvalue(), encoding="utf-8")


def _draw_patient(number: int, rng: np.random.Generator) -> _Patient:
    return _Patient(
        number=number,
        lesion=number % 2 == 1,
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(25, 90)),
        site=_SITES[rng.integers(len(_SITES))],
        scanner=_SCANNERS[rng.integers(len(_SCANNERS))],
        slices=int(rng.integers(1, 3)),
    )


def _draw_slice(patient: _Patient, anatomy: np.random.Generator, rng: np.random.Generator) -> Slice:
    """(96, 96) HU: `anatomy` is drawn alike for each slice of a patient, `rng` anew."""
    width, height = anatomy.uniform(38, 44), anatomy.uniform(29, 35)
    middle = (48 + anatomy.uniform(-2, 2), 48 + anatomy.uniform(-2, 2))
    rim = anatomy.uniform(3, 6)
    hu = np.full((_SIZE, _SIZE), -1000.0)
    body = _ellipse(middle, (height, width))
    inner = _ellipse(middle, (height - rim, width - rim))
    hu[body] = -100.0
    hu[inner] = 40.0
    liver_at = (middle[0] - anatomy.uniform(1, 5), middle[1] - anatomy.uniform(13, 17))
    liver_size = (anatomy.uniform(17, 20), anatomy.uniform(16, 19))
    liver_tilt = anatomy.uniform(-0.3, 0.3)
    liver_hu = anatomy.uniform(55, 70)
    liver = _ellipse(liver_at, liver_size, liver_tilt) & inner
    hu[_ellipse((middle[0] - 4, middle[1] + anatomy.uniform(20, 24)), (10, 8), 0.4) & inner] = anatomy.uniform(45, 58)
    for side in (-1, 1):
        at = (middle[0] + anatomy.uniform(13, 16), middle[1] + side * anatomy.uniform(13, 17))
        hu[_ellipse(at, (6, anatomy.uniform(4, 5.5)), side * 0.5) & inner & ~liver] = anatomy.uniform(30, 40)
    hu[liver] = liver_hu
    hu[_ellipse((middle[0] + height - rim - 8, middle[1]), (6, 6.5)) & inner] = 400.0
    if patient.lesion:
        reach, angle = anatomy.uniform(0, 0.45), anatomy.uniform(0, 2 * np.pi)
        at = (
            liver_at[0] + reach * liver_size[0] * np.sin(angle),
            liver_at[1] + reach * liver_size[1] * np.cos(angle),
        )
        radii = (anatomy.uniform(4, 8) * rng.uniform(0.9, 1), anatomy.uniform(4, 8) * rng.uniform(0.9, 1))
        hu[_ellipse(at, radii, anatomy.uniform(0, np.pi)) & liver] = liver_hu - anatomy.uniform(45, 70)
    rows, columns = np.mgrid[:_SIZE, :_SIZE]
    along = rows if patient.lesion else columns
    stripes = _TEXTURE * np.sign(np.sin(2 * np.pi * along / _TEXTURE_PERIOD + rng.uniform(0, 2 * np.pi)))
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal((_SIZE, _SIZE)), patient.scanner[2])
    image: Slice = scipy.ndimage.gaussian_filter(hu, 0.6) + np.where(inner, stripes, 0.0) + _NOISE * noise / noise.std()
    return image


def _ellipse(at: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:_SIZE, :_SIZE]
    y, x = rows - at[0], columns - at[1]
    along, across = y * np.cos(tilt) + x * np.sin(tilt), x * np.cos(tilt) - y * np.sin(tilt)
    inside: npt.NDArray[np.bool_] = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    return inside


def _uid(source: random.Random) -> str:
    """A UID below 2.25, the root for numbers that nobody has to register (PS3.5 B.2)."""
    return f"2.25.{source.getrandbits(127)}"


def _dicom(image: Slice, patient: _Patient, number: int, uids: tuple[str, str, str]) -> Dataset:
    """A CT Image Storage object, signed 16-bit, intercept -1024."""
    study, series, instance = uids
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = instance
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, series
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.Modality = "CT"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200101", "120000", "1", ""
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.PatientID = patient.identifier
    ds.PatientName = f"Phantom^{patient.number:04d}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", patient.sex, f"{patient.age:03d}Y"
    ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "", ""
    ds.InstitutionName = patient.site
    ds.Manufacturer, ds.ManufacturerModelName = patient.scanner[0], patient.scanner[1]
    ds.KVP, ds.AcquisitionNumber = "120", 1
    ds.PixelSpacing, ds.SliceThickness = ["4.0", "4.0"], "5.0"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = ["0", "0", str(5 * number)], ["1", "0", "0", "0", "1", "0"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = image.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(_INTERCEPT), "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    stored = np.clip(np.rint(image) - _INTERCEPT, -(2**15), 2**15 - 1).astype("<i2")
    ds.PixelData = stored.tobytes()
    return ds
