"""Writing changed pixels back as a derived, de-identified DICOM image of the same kind."""

from __future__ import annotations

import hashlib
import hmac
import io
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from medharden._version import __version__
from medharden.data.formats.dicom import open_dicom, padding_of, rescale_of, stored_range
from medharden.data.formats.limits import Hold
from medharden.data.formats.placing import functional_groups
from medharden.data.stored.dicom_kept import kept_elements
from medharden.data.stored.values import StoredValues
from medharden.errors import DataError

__all__ = ["Marks", "dicom_bytes", "dicom_values"]

_LOSSY = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
    JPEG2000: "ISO_15444_1",
}
_WARNING = "ADVERSARIAL TEST IMAGE - NOT FOR CLINICAL USE"
_PALETTE = "PALETTE COLOR"
_ENHANCED = (
    "FrameContentSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
)


@dataclass(frozen=True)
class Marks:
    """What a written file says of itself.

    Attributes:
        case, patient: pseudonyms.
        number: the case's place among those written, from 1.
        change: how the pixels were changed, in words without patient data.
        key: secret from which new UIDs are derived, so that equal UIDs stay equal and none can be guessed back.
        origin: digest of what made the change (model, protocol, seed); part of the new series' and instance's UIDs.
    """

    case: str
    patient: str
    number: int
    change: str
    key: bytes = field(repr=False)
    origin: str


def dicom_values(path: Path, dims: int, hold: Hold) -> StoredValues:
    """The stored values of a DICOM image.

    Raises:
        DataError: as `read_dicom`, or the image can't be written back: a palette, a modality lookup table, an enhanced
            multi-frame object, or text burned into the pixels.
    """
    ds, image, stored = open_dicom(path, dims, hold)
    _check_writable(ds)
    low, high = stored_range(ds)
    planes = np.moveaxis(stored, -1, 0) if int(ds.SamplesPerPixel) == 3 else stored[None]
    planes = planes[: image.values.shape[0]].astype(np.int64)
    slope, intercept = (1.0, 0.0) if int(ds.SamplesPerPixel) == 3 else (float(v[0]) for v in rescale_of(ds))
    return StoredValues(planes, low, high, slope, intercept, padding_of(ds, planes), image)


def _check_writable(ds: Dataset) -> None:
    if str(ds.get("SOPClassUID") or "") not in UID_dictionary:
        raise DataError("names no kind of DICOM object (SOP class) that the standard knows")
    if str(ds.PhotometricInterpretation) == _PALETTE:
        raise DataError("stores places in a colour palette, not brightness; it can't be attacked in stored values")
    if ds.get("ModalityLUTSequence"):
        raise DataError("has a modality lookup table, so that a stored count has no fixed size in rescaled units")
    if any(functional_groups(ds, name) for name in _ENHANCED):
        raise DataError("is an enhanced multi-frame object; these are not written back")
    if str(ds.get("BurnedInAnnotation") or "").upper() == "YES":
        raise DataError("says that text is burned into its pixels, which may name the patient; it is not written")


def dicom_bytes(
    path: Path, dims: int, stored: npt.NDArray[np.int64], marks: Marks, hold: Hold
) -> tuple[bytes, str, tuple[str, ...]]:
    """The file of a DICOM image with other pixels: Explicit VR Little Endian, uncompressed, derived, de-identified.

    Everything that says how pixels are stored and shown is kept; of the rest, what `kept_elements` names. Colour is
    written as RGB, as decoded.

    Args:
        path: the source.
        dims: as `read_dicom` takes it.
        stored: (C, *spatial) as `dicom_values` gives it, within what the bits hold.
        marks: what the file says of itself.
        hold: the memory that may be taken.

    Returns:
        The file, its ending, and every text in its header but the UIDs, all of which are new or the standard's.

    Raises:
        DataError: as `dicom_values`.
    """
    source, _, before = open_dicom(path, dims, hold)
    _check_writable(source)
    ds = kept_elements(source)
    _pixels(ds, source, before, stored)
    _compression(ds, source)
    _identity(ds, source, marks, digest=hashlib.sha256(stored.tobytes()).hexdigest())
    _derivation(ds, source, marks)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    words = tuple(str(e.value) for e in ds.iterall() if e.VR not in ("SQ", "UI", "OB", "OW"))
    return buffer.getvalue(), ".dcm", words


def _pixels(ds: Dataset, source: Dataset, before: npt.NDArray[Any], stored: npt.NDArray[np.int64]) -> None:
    if int(source.SamplesPerPixel) == 3:
        planes = np.broadcast_to(stored, (3, *stored.shape[1:]))
        array, ds.PhotometricInterpretation, ds.PlanarConfiguration = np.moveaxis(planes, 0, -1), "RGB", 0
    else:
        array = stored[0]
    ds.HighBit = int(ds.BitsStored) - 1
    kind = ("i" if int(ds.PixelRepresentation) else "u") + str(int(ds.BitsAllocated) // 8)
    data = np.ascontiguousarray(array.reshape(before.shape)).astype(f"<{kind}").tobytes()
    ds.add_new("PixelData", "OB" if kind.endswith("1") else "OW", data + b"\0" * (len(data) % 2))


def _compression(ds: Dataset, source: Dataset) -> None:
    """An image that was ever compressed with loss stays so (PS3.3 C.7.6.1.1.5)."""
    method = _LOSSY.get(source.file_meta.TransferSyntaxUID)
    if method is None or source.get("LossyImageCompression"):
        return
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", method
    raw = int(source.Rows) * int(source.Columns) * int(source.SamplesPerPixel) * int(source.BitsAllocated) // 8
    raw *= int(source.get("NumberOfFrames") or 1)
    ds.LossyImageCompressionRatio = f"{raw / max(1, len(source.PixelData)):.2f}"


def _identity(ds: Dataset, source: Dataset, marks: Marks, *, digest: str) -> None:
    """Pseudonyms, new UIDs and empty dates, after the Basic Application Confidentiality Profile (PS3.15 Annex E)."""
    ds.SOPClassUID = source.SOPClassUID
    ds.StudyInstanceUID = _uid(marks.key, "study", str(source.get("StudyInstanceUID", "")))
    ds.SeriesInstanceUID = _uid(marks.key, "series", f"{source.get('SeriesInstanceUID', '')}/{marks.origin}")
    ds.SOPInstanceUID = _uid(marks.key, "instance", f"{source.get('SOPInstanceUID', '')}/{marks.origin}/{digest}")
    if source.get("FrameOfReferenceUID"):
        ds.FrameOfReferenceUID = _uid(marks.key, "frame", str(source.FrameOfReferenceUID))
        ds.PositionReferenceIndicator = None
    ds.PatientName = ds.PatientID = marks.patient
    ds.PatientBirthDate = ds.PatientSex = ds.ReferringPhysicianName = None
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.StudyID = None
    ds.SeriesNumber, ds.InstanceNumber = 1, marks.number
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = f"medharden {__version__}: named elements kept, all others removed"
    ds.DeidentificationMethodCodeSequence = Sequence([_code("113100", "Basic Application Confidentiality Profile")])
    ds.LongitudinalTemporalInformationModified = "REMOVED"


def _derivation(ds: Dataset, source: Dataset, marks: Marks) -> None:
    """What was done to which image, and who did it (PS3.3 C.7.6.1.1.3 and C.12.4.1)."""
    ds.DerivationDescription = marks.change
    ds.SeriesDescription = _WARNING
    ds.ImageComments = f"{_WARNING}; case {marks.case}"
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = _uid(marks.key, "source", str(source.get("SOPInstanceUID", "")))
    item.PurposeOfReferenceCodeSequence = Sequence([_code("121322", "Source image for image processing operation")])
    ds.SourceImageSequence = Sequence([item])
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "medharden", "attack", __version__


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _uid(key: bytes, kind: str, text: str) -> str:
    """A UID below 2.25 (PS3.5 B.2) from a keyed hash: the same text gives the same UID, and only the key leads back."""
    digest = hmac.new(key, f"uid:{kind}:{text}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
