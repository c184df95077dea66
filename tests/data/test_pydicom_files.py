"""Every file that pydicom ships for its own tests: the values of its own pipeline, or a refusal with a reason."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medharden.data.formats.dicom import read_dicom
from medharden.data.formats.image import quiet_readers
from medharden.data.formats.limits import Room
from medharden.errors import DataError

NO_FILES = (".py", ".pyc", ".json", ".txt", ".md", ".zip")


def reference(path: Path) -> np.ndarray | None:
    """(C, *spatial) values as pydicom gives them; None where it gives none."""
    try:
        ds = pydicom.dcmread(path, force=True)
        array = ds.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, ValueError, OSError):
        return None
    if str(ds.PhotometricInterpretation) == "PALETTE COLOR":
        array = apply_color_lut(array, ds)
    colour = int(ds.SamplesPerPixel) == 3 or str(ds.PhotometricInterpretation) == "PALETTE COLOR"
    return np.moveaxis(array, -1, 0) if colour else apply_modality_lut(array, ds)[None]


def ours(path: Path, dims: int) -> np.ndarray | str:
    try:
        with quiet_readers(), Room().file() as hold:
            return read_dicom(path, dims, hold).values
    except DataError as error:
        return str(error)


def test_pydicoms_own_files_give_its_values_or_are_refused_for_what_they_are() -> None:
    found: Counter[str] = Counter()
    reasons: set[str] = set()
    for path in sorted(Path(pydicom.data.__file__).parent.rglob("*")):
        if not path.is_file() or path.suffix in NO_FILES:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = reference(path)
        flat = wanted is None or wanted.ndim == 3
        values = ours(path, 2 if flat else 3)
        if isinstance(values, str):
            found["refused as pydicom does" if wanted is None else "refused"] += 1
            reasons |= set() if wanted is None else {values}
            continue
        assert wanted is not None, path.name
        found["read"] += 1
        if len(values) == 1 and len(wanted) == 3:
            assert np.array_equal(wanted[0], wanted[1]), path.name
        np.testing.assert_array_equal(values, wanted[: len(values)].astype(np.float32), err_msg=path.name)
    padded = "holds 128 bytes of pixels beyond the 8192 that its rows, columns, frames and bits give"
    assert reasons == {padded, *(f"stores {bits} bits a value, expected 8 or 16" for bits in (1, 32))}
    assert found["read"] >= 85
    assert found["refused"] <= 15
