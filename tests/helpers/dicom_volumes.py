"""Volumes as DICOM: enhanced multi-frame files and series of single-frame ones, with known positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from data_helpers import dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.9659, 0.2588, 0.0, -0.2588, 0.9659, 0.0)
FRAMES = np.random.default_rng(5).integers(0, 3000, (7, 5, 6)).astype(np.int16)


def positions(count: int, orientation: Sequence[float] = AXIAL, step: float = 2.5) -> np.ndarray:
    """(count, 3) millimetres, along the normal of a plane."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array([-30.0, 12.5, 40.0]) + step * np.arange(count)[:, None] * normal


def canonical(frames: np.ndarray, places: np.ndarray, orientation: Sequence[float]) -> np.ndarray:
    """The same volume by nibabel: frames in order, (slice, row, column), as RAS+."""
    axes = np.column_stack([places[1] - places[0], orientation[3:], orientation[:3]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, places[0]
    return np.asarray(
        nib.as_closest_canonical(nib.Nifti1Image(frames.astype(np.float64), np.diag([-1, -1, 1, 1]) @ affine)).dataobj
    )


def enhanced(
    path: Path,
    frames: np.ndarray,
    places: np.ndarray,
    orientation: Sequence[float] = AXIAL,
    *,
    each: Sequence[Mapping[str, Mapping[str, Any]]] | None = None,
    **fields: Any,
) -> Path:
    """An enhanced CT file; `each` gives further functional groups of a frame, by sequence and attribute."""
    shared = _group({"PlaneOrientationSequence": {"ImageOrientationPatient": list(orientation)}})
    groups = [
        _group({"PlanePositionSequence": {"ImagePositionPatient": [f"{v:.6g}" for v in place]}} | dict(more))
        for place, more in zip(places, each or [{}] * len(places), strict=True)
    ]
    given = {
        "SOPClassUID": EnhancedCTImageStorage,
        "SharedFunctionalGroupsSequence": Items([shared]),
        "PerFrameFunctionalGroupsSequence": Items(groups),
    }
    return dicom(path, frames, **(given | fields))


def series(
    folder: Path,
    frames: np.ndarray,
    places: np.ndarray,
    orientation: Sequence[float] = AXIAL,
    *,
    uid: str = "2.25.77",
    each: Sequence[Mapping[str, Any]] | None = None,
    names: Sequence[str] | None = None,
    **fields: Any,
) -> Path:
    """A folder with a file a slice, as an archive exports them; `each` gives further elements of a slice."""
    for number, (frame, place) in enumerate(zip(frames, places, strict=True)):
        given = {
            "SOPInstanceUID": f"{uid}.{number}",
            "SeriesInstanceUID": uid,
            "StudyInstanceUID": f"{uid}.5",
            "PatientID": "P1",
            "ImagePositionPatient": [f"{v:.6g}" for v in place],
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": [1, 1],
            "InstanceNumber": number + 1,
            **fields,
            **(each[number] if each else {}),
        }
        name = names[number] if names else f"{number}.dcm"
        dicom(folder / name, frame, **{k: v for k, v in given.items() if v is not None})
    return folder


def _group(sequences: Mapping[str, Mapping[str, Any]]) -> Dataset:
    group = Dataset()
    for name, values in sequences.items():
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(group, name, Items([item]))
    return group
