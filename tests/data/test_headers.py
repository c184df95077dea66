"""DICOM headers as hospitals write them: broken windows, decimal commas, padding; used where they are needed alone."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from data_helpers import dicom, window
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medharden.data.formats.files import read_file
from medharden.data.formats.image import quiet_readers
from medharden.data.view.case import case_of, recipe_for
from medharden.errors import DataError
from medharden.protocol import Input, Intensity

RISING = np.arange(256, dtype=np.uint16).reshape(16, 16)


def table() -> Sequence:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [16, 0, 16], struct.pack("<10H", *range(10))
    return Sequence([item])


BROKEN = [
    ({"WindowCenter": "1", "WindowWidth": "0.5"}, "width that DICOM forbids"),
    ({"WindowCenter": "1", "WindowWidth": "0"}, "width that DICOM forbids"),
    ({"WindowCenter": "1", "WindowWidth": "-3", "VOILUTFunction": "SIGMOID"}, "width that DICOM forbids"),
    ({"WindowCenter": "100", "WindowWidth": "200", "VOILUTFunction": "LOG"}, "function that is not supported"),
    ({"VOILUTSequence": table()}, "does not match its description"),
    ({"WindowCenter": "100"}, "1 window centres and 0 widths"),
    ({"WindowCenter": ["1", "2"], "WindowWidth": "20"}, "2 window centres and 1 widths"),
]


@pytest.mark.parametrize(("fields", "reason"), BROKEN)
def test_a_broken_window_is_refused_by_name_only_where_it_is_used(tmp_path, fields, reason):
    path = dicom(tmp_path / "a.dcm", RISING, **fields)
    with quiet_readers():
        image = read_file(path, 2)
    with pytest.raises(DataError, match=reason):
        recipe_for(image, Input())
    _, unit = case_of(image, Input(intensity=window(0, 255)))
    np.testing.assert_allclose(unit[0], RISING / 255, atol=1e-7)
    assert recipe_for(image, Input(intensity=Intensity(mode="percentile", low=0, high=100))).window.high == 255


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (b"\x53\x10", b"1,5 ", r"RescaleSlope\) with a decimal comma"),
        (b"\x52\x10", b"-10,5 ", r"RescaleIntercept\) with a decimal comma"),
        (b"\x53\x10", b"100\\", r"RescaleSlope\) with an empty value: a backslash"),
        (b"\x53\x10", b"1.5x", r"RescaleSlope\) that is no number"),
        (b"\x50\x10", b"100\\", r"WindowCenter\) with an empty value"),
        (b"\x51\x10", b"1,5 ", r"WindowWidth\) with a decimal comma"),
    ],
)
def test_a_number_that_is_written_wrongly_is_told_as_what_it_is(tmp_path, name, value, reason):
    fields = {"WindowCenter": "100", "WindowWidth": "200", "RescaleSlope": "2", "RescaleIntercept": "-1"}
    data = dicom(tmp_path / "a.dcm", RISING, **fields).read_bytes()
    start = data.index(b"\x28\x00" + name + b"DS")
    length = int.from_bytes(data[start + 6 : start + 8], "little")
    changed = data[: start + 6] + struct.pack("<H", len(value)) + value + data[start + 8 + length :]
    (tmp_path / "a.dcm").write_bytes(changed)
    with quiet_readers(), pytest.raises(DataError, match=reason):
        recipe_for(read_file(tmp_path / "a.dcm", 2), Input())


@pytest.mark.parametrize(
    ("dtype", "fields", "hidden"),
    [
        (np.int16, {"PixelPaddingValue": -2000}, [-2000]),
        (np.int16, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1000}, [-2000, -1500, -1000]),
        (np.uint16, {"PixelPaddingValue": 60000}, [60000]),
    ],
)
def test_padding_is_left_out_of_percentiles(tmp_path, dtype, fields, hidden):
    stored = np.resize(np.array(hidden), (16, 16)).astype(dtype)
    stored[4:12, 4:12] = np.arange(64).reshape(8, 8)
    with quiet_readers():
        image = read_file(dicom(tmp_path / "a.dcm", stored, **fields), 2)
    found = recipe_for(image, Input(intensity=Intensity(mode="percentile", low=0, high=100))).window
    assert (found.low, found.high) == (0, 63)
    np.testing.assert_array_equal(~image.padding[4:12, 4:12], np.ones((8, 8), bool))


def test_an_image_of_padding_alone_has_no_percentiles(tmp_path):
    stored = np.full((16, 16), -2000, np.int16)
    with quiet_readers():
        image = read_file(dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000), 2)
    with pytest.raises(DataError, match="padding alone"):
        recipe_for(image, Input(intensity=Intensity(mode="percentile", low=1, high=99)))
