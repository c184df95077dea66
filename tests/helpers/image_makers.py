"""Image files made byte by byte, so that tests can make them wrong: PNG, JPEG, TIFF, NIfTI, DICOM, archives."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zipfile
import zlib

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
)

GREY = np.random.default_rng(7).integers(0, 256, (40, 48), dtype=np.uint8)
DEEP = np.random.default_rng(8).integers(0, 65536, (20, 24, 4), dtype=np.uint16)
SMOOTH = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)


# --- PNG ---------------------------------------------------------------------------------------------------------


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_file(
    array: np.ndarray,
    *,
    before: bytes = b"",
    after: bytes = b"",
    idat: bytes | None = None,
    size: tuple[int, int] | None = None,
    interlaced: bool = False,
    colour: int | None = None,
    depth: int | None = None,
) -> bytes:
    """A PNG of (H, W) or (H, W, 1 to 4), 8 or 16 bits; `idat` replaces the pixel data, `size` (H, W) the claim."""
    planes = array if array.ndim == 3 else array[..., None]
    height, width = size or planes.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[planes.shape[2]] if colour is None else colour
    bits = 8 * array.dtype.itemsize if depth is None else depth
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    rows = b"".join(map(_filtered, _passes(planes) if interlaced else [planes]))
    data = zlib.compress(rows) if idat is None else idat
    parts = chunk(b"IHDR", head), before, chunk(b"IDAT", data), after, chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _filtered(planes: np.ndarray) -> bytes:
    """Rows with each of the five filters in turn, so that a decoder has to undo them all."""
    big = planes.astype(planes.dtype.newbyteorder(">"))
    step = big.shape[2] * big.dtype.itemsize
    rows = np.frombuffer(big.tobytes(), np.uint8).reshape(len(big), -1).astype(np.int64)
    out, above = [], np.zeros(rows.shape[1] if rows.size else 0, np.int64)
    for number, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, np.int64), row[:-step]])
        corner = np.concatenate([np.zeros(step, np.int64), above[:-step]])
        guess = [0 * row, left, above, (left + above) // 2, _paeth(left, above, corner)][number % 5]
        out.append(bytes([number % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes())
        above = row
    return b"".join(out)


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    whole = left + above - corner
    far = abs(whole - left), abs(whole - above), abs(whole - corner)
    return np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], above, corner))


def _passes(planes: np.ndarray) -> list[np.ndarray]:
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    passes = [planes[top::down, left::across] for left, top, across, down in starts]
    return [p for p in passes if p.size]


def text_bomb() -> bytes:
    return b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**26), 9)


# --- JPEG --------------------------------------------------------------------------------------------------------


def jpeg_file(array: np.ndarray = SMOOTH, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jpeg_with(segment: int, content: bytes) -> bytes:
    """A JPEG with a segment of an application after its start."""
    data = jpeg_file()
    return data[:2] + bytes([0xFF, segment]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def jpeg_of_size(height: int, width: int, **options: object) -> bytes:
    """A small JPEG that claims another size in its frame header."""
    data = bytearray(jpeg_file(**options))
    place = next(i for i in range(2, len(data)) if data[i] == 0xFF and data[i + 1] in (0xC0, 0xC2))
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_scans(times: int) -> bytes:
    """A progressive JPEG of 12000 x 12000 pixels whose last scan comes very many times."""
    data = jpeg_of_size(12_000, 12_000, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * times + b"\xff\xd9"


def exif_block(entries: int = 1, orientation: int = 6, length: int = 4) -> bytes:
    """EXIF with an orientation, and further fields that all claim the same long value."""
    fields = [(274, 3, 1, orientation)] + [(40_000 + k, 7, length, 8) for k in range(entries - 1)]
    body = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + body + bytes(4)


# --- TIFF --------------------------------------------------------------------------------------------------------

SHORT, LONG = 3, 4


def tiff_file(
    array: np.ndarray = GREY,
    *,
    compression: int = 1,
    data: bytes | None = None,
    order: str = "<",
    following: int = 0,
    repeat: int = 0,
    **fields: int | tuple[int, ...],
) -> bytes:
    """One page in one strip; `fields` named as `t262` replace a field, `data` the strip, `repeat` adds long fields."""
    planes = array if array.ndim == 3 else array[..., None]
    height, width, samples = planes.shape
    stored = planes.astype(planes.dtype.newbyteorder(order)).tobytes()
    strip = data if data is not None else zlib.compress(stored) if compression == 8 else stored
    form = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    values: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (8 * array.dtype.itemsize,) * samples, 259: (compression,),
        262: (2 if samples >= 3 else 1,), 273: (8,), 277: (samples,), 278: (height,), 279: (len(strip),),
        339: (form,) * samples,
    }  # fmt: skip
    for name, value in fields.items():
        values[int(name[1:])] = value if isinstance(value, tuple) else (value,)
    values = {tag: value for tag, value in values.items() if value}
    place = 8 + len(strip) + len(strip) % 2
    beyond = place + 2 + 12 * (len(values) + repeat) + 4
    entries, tail = [], b""
    for tag, numbers in sorted(values.items()):
        wide = tag in (256, 257, 273, 278, 279, 322, 323, 324, 325)
        content = struct.pack(f"{order}{len(numbers)}{'I' if wide else 'H'}", *numbers)
        inside = content if len(content) <= 4 else struct.pack(f"{order}I", beyond + len(tail))
        entries.append(struct.pack(f"{order}HHI", tag, LONG if wide else SHORT, len(numbers)) + inside.ljust(4, b"\0"))
        tail += content if len(content) > 4 else b""
    entries += [struct.pack(f"{order}HHII", 50_000 + k, SHORT, len(strip) // 2, 8) for k in range(repeat)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + struct.pack(f"{order}I", following)
    return head + strip + b"\0" * (len(strip) % 2) + directory + tail


def lzw_of(array: np.ndarray) -> bytes:
    """The compressed bytes of a picture in one strip."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF", compression="tiff_lzw", strip_size=array.size)
    with Image.open(buffer) as picture:
        (start,), (length,) = picture.tag_v2[273], picture.tag_v2[279]  # type: ignore[attr-defined]
    return buffer.getvalue()[start : start + length]


# --- NIfTI -------------------------------------------------------------------------------------------------------


def nifti_file(
    shape: tuple[int, ...] = (6, 7, 8), *, offset: float = 352, between: bytes = bytes(4), data: bytes | None = None
) -> bytes:
    """A NIfTI-1 file of int16 voxels; `between` lies between header and voxels."""
    head = bytearray(348)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hh", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, *[1.0] * 8)
    struct.pack_into("<3f", head, 108, offset, 2.0, -5.0)
    struct.pack_into("<4s", head, 344, b"n+1\0")
    voxels = (np.arange(np.prod(shape)) % 997).astype("<i2").tobytes() if data is None else data
    return bytes(head) + between + voxels


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def flipped(data: bytes, place: int, bit: int = 3) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


# --- DICOM -------------------------------------------------------------------------------------------------------


def dicom_file(
    stored: np.ndarray = SMOOTH,
    *,
    syntax: str = ExplicitVRLittleEndian,
    pixels: bytes | None = None,
    rest: bytes = b"",
    **fields: object,
) -> bytes:
    """A grey or colour image; `pixels` replaces the pixel data, `rest` follows the file."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, "2.25.1"
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "2.25.1"
    colour = stored.ndim == 3 and stored.shape[-1] == 3
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    ds.Rows, ds.Columns = stored.shape[:2] if colour or stored.ndim == 2 else stored.shape[1:]
    if colour:
        ds.PlanarConfiguration = 0
    elif stored.ndim == 3:
        ds.NumberOfFrames = len(stored)
    bits = 8 * stored.dtype.itemsize
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in fields.items():
        setattr(ds, name, value)
    data = stored.tobytes() if pixels is None else pixels
    ds.PixelData = data if ds.file_meta.TransferSyntaxUID.is_encapsulated else data + b"\0" * (len(data) % 2)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds["PixelData"].is_undefined_length = ds.file_meta.TransferSyntaxUID.is_encapsulated
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue() + rest


def rle_frame(segments: list[bytes]) -> bytes:
    offsets, place = [], 64
    for segment in segments:
        offsets.append(place)
        place += len(segment)
    return struct.pack("<16I", len(segments), *offsets, *[0] * (15 - len(segments))) + b"".join(segments)


def rle_of(data: bytes) -> bytes:
    """Literal runs, padded to an even length."""
    runs = b"".join(bytes([len(part) - 1]) + part for part in (data[i : i + 128] for i in range(0, len(data), 128)))
    return runs + b"\0" * (len(runs) % 2)


def j2k_file(array: np.ndarray = SMOOTH, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG2000", no_jp2=True, **options)
    return buffer.getvalue()


def encoded(frames: list[bytes], syntax: str, stored: np.ndarray = SMOOTH, **fields: object) -> bytes:
    return dicom_file(stored, syntax=syntax, pixels=encapsulate(frames, has_bot=True), **fields)


def deflated(data: bytes) -> bytes:
    """The same DICOM file with everything after its file meta information deflated."""
    plain = data.index(b"\x08\x00\x16\x00UI")
    meta = data[:plain].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    at = meta.index(b"\x02\x00\x10\x00UI") + 6
    meta = meta[:at] + struct.pack("<H", 22) + meta[at + 2 :]
    inflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return meta + inflater.compress(data[plain:]) + inflater.flush()


def items(count: int) -> Sequence:
    return Sequence([Dataset() for _ in range(count)])


def item_bomb(length: int) -> bytes:
    """Before the pixels, a sequence of nothing but empty items."""
    data = dicom_file()
    at = data.index(b"\xe0\x7f\x10\x00OW") if b"\xe0\x7f\x10\x00OW" in data else data.index(b"\xe0\x7f\x10\x00OB")
    sequence = (
        b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * length + b"\xfe\xff\xdd\xe0\0\0\0\0"
    )
    return data[:at] + sequence + data[at:]


def long_element(data: bytes) -> bytes:
    """The file with an element before its pixels that claims to be 4 GB long."""
    at = data.index(b"\xe0\x7f\x10\x00O")
    return data[:at] + b"\x29\x00\x10\x10UN\0\0\xf0\xff\xff\xff" + data[at:]


def palette_bomb() -> bytes:
    """A segmented palette whose linear segments unpack to 100 million colours."""
    words = [0, 1, 7] + [1, 65_535, 9] * 1_600
    data = struct.pack(f"<{len(words)}H", *words)
    fields: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [0, 0, 16]
        fields[f"Segmented{colour}PaletteColorLookupTableData"] = data
    return dicom_file(**fields)


# --- archives ----------------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npz_file(members: dict[str, bytes] | None = None, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A MedMNIST archive of 12, 6 and 6 images of 8 x 8 pixels, some members replaced."""
    rng = np.random.default_rng(3)
    whole = {}
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        whole[f"{split}_images.npy"] = npy(rng.integers(0, 256, (count, 8, 8), dtype=np.uint8))
        whole[f"{split}_labels.npy"] = npy((np.arange(count) % 3).astype(np.uint8)[:, None])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, content in (whole | (members or {})).items():
            out.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def npy_zeros(shape: tuple[int, ...]) -> bytes:
    """An array of zeros as NumPy writes it."""
    return npy(np.zeros(shape, np.uint8))
