"""Image files that mean harm, or came to it: each made in memory, the same bytes every time, by name.

`REFUSED` gives a reason to each file that must be refused; `READ` holds odd files that must be read. Both map a file name
to what makes its bytes. None of them is larger than a megabyte. A volume has `.nii` or `_3d` in its name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

Made = Callable[[], bytes]
GREY = np.random.default_rng(7).integers(0, 256, (40, 48), dtype=np.uint8)
DEEP = np.random.default_rng(8).integers(0, 65536, (20, 24, 4), dtype=np.uint16)
SMOOTH = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
SIDE = 20_000  # of a picture of 400 million pixels, which needs 3.2 GB


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
    """A PNG of (H, W) or (H, W, 1 to 4), 8 or 16 bits; `idat` replaces the compressed pixels, `size` (H, W) the claim."""
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
        262: (2 if samples >= 3 else 1,), 273: (8,), 277: (samples,), 278: (height,), 279: (len(strip),), 339: (form,) * samples,
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
    sequence = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * length + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return data[:at] + sequence + data[at:]


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


# --- the files ---------------------------------------------------------------------------------------------------

ZEROS = 2**26  # bytes that a bomb unpacks to; 65 KB when deflated

REFUSED: dict[str, tuple[Made, str]] = {
    # checksums
    "gzip_voxel.nii.gz": (lambda: flipped(zipped(nifti_file()), 300), "fails its checksum|can't be decompressed"),
    "gzip_crc.nii.gz": (lambda: flipped(zipped(nifti_file()), -8), "fails its checksum"),
    "gzip_length.nii.gz": (lambda: flipped(zipped(nifti_file()), -1), "fails its checksum"),
    "png_pixels_crc.png": (lambda: flipped(png_file(GREY), 60), "fails a checksum"),
    "png_text_crc.png": (lambda: flipped(png_file(GREY, before=chunk(b"tEXt", b"a\0b")), 44), "fails a checksum"),
    "png_end_crc.png": (lambda: flipped(png_file(GREY), -1), "fails a checksum"),
    "png_zlib.png": (lambda: png_file(GREY, idat=flipped(zlib.compress(bytes(40 * 49)), -1)), "fails its checksum"),
    "tiff_zlib.tif": (lambda: tiff_file(data=flipped(zlib.compress(GREY.tobytes()), -1), t259=8), "fails its checksum"),
    "npz_crc.npz": (lambda: flipped(npz_file(method=zipfile.ZIP_STORED), 400), "fails its checksum"),
    # cut off
    "gzip_cut.nii.gz": (lambda: zipped(nifti_file())[:-9], "cut off"),
    "gzip_without_end.nii.gz": (lambda: zipped(nifti_file())[:-8], "cut off"),
    "nifti_cut.nii": (lambda: nifti_file()[:-1], "cut off: 1 bytes"),
    "nifti_header_cut.nii": (lambda: nifti_file()[:350], "cut off"),
    "png_cut.png": (lambda: png_file(GREY)[:-12], "cut off"),
    "png_short.png": (lambda: png_file(GREY, size=(41, 48)), "cut off"),
    "png_unfinished.png": (lambda: png_file(GREY, idat=zlib.compress(bytes(40 * 49))[:-5]), "cut off"),
    "jpeg_cut.jpg": (lambda: jpeg_file()[:-2], "cut off"),
    "jpeg_cut_closed.jpg": (lambda: jpeg_file(GREY)[:-200] + b"\xff\xd9", "damaged"),
    "jpeg_half_a_marker.jpg": (lambda: jpeg_file()[:-1], "cut off"),
    "jpeg_more_data.jpg": (lambda: jpeg_file()[:-2] + b"\x12\x34\x56" * 9 + b"\xff\xd9", "damaged"),
    "tiff_cut.tif": (lambda: tiff_file(t279=3000), "beyond its end"),
    "tiff_cut_field.tif": (lambda: tiff_file(t258=(8, 8, 8))[:-2], "beyond its end|cut off"),
    "tiff_short_strip.tif": (lambda: tiff_file(t279=1900), "another length"),
    "tiff_lzw_cut.tif": (lambda: tiff_file(data=lzw_of(GREY)[:-300], t259=5), "damaged"),
    "dicom_cut.dcm": (lambda: dicom_file()[:-10], "cut off"),
    "dicom_short.dcm": (lambda: dicom_file(pixels=SMOOTH.tobytes()[:-64]), "cut off: 64 of 4096"),
    "dicom_no_delimiter.dcm": (lambda: encoded([jpeg_file()], JPEGBaseline8Bit)[:-8], "cut off"),
    "dicom_rle_short.dcm": (lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes()[:-9])])], RLELossless), "cut off"),
    "dicom_jpeg_cut.dcm": (
        lambda: encoded([jpeg_file(GREY)[:-200] + b"\xff\xd9"], JPEGBaseline8Bit, GREY), "damaged"
    ),
    "dicom_j2k_cut.dcm": (lambda: encoded([j2k_file(GREY)[:-400]], JPEG2000Lossless, GREY), "cut off"),
    "dicom_j2k_cut_closed.dcm": (lambda: encoded([j2k_file(GREY)[:-400] + b"\xff\xd9"], JPEG2000Lossless, GREY), "cut off"),
    "dicom_deflated_cut.dcm": (lambda: deflated(dicom_file())[:-20], "cut off"),
    # more than the header says
    "nifti_long.nii": (lambda: nifti_file() + b"\0", "goes on after its last voxel"),
    "gzip_long.nii.gz": (lambda: zipped(nifti_file() + b"\0"), "goes on after its last voxel"),
    "gzip_tail.nii.gz": (lambda: zipped(nifti_file()) + b"tail", "goes on after the end"),
    "gzip_second_member.nii.gz": (lambda: zipped(nifti_file()) + zipped(b"more"), "goes on after its last voxel"),
    "png_long.png": (lambda: png_file(GREY, size=(39, 48)), "more data than its header"),
    "png_two_streams.png": (
        lambda: png_file(GREY, idat=zlib.compress(bytes(40 * 49)) + zlib.compress(b"more")), "more data than its header"
    ),
    "png_tail.png": (lambda: png_file(GREY) + b"tail", "goes on after the end"),
    "jpeg_tail.jpg": (lambda: jpeg_file() + b"tail", "goes on after the end"),
    "jpeg_twice.jpg": (lambda: jpeg_file() * 2, "goes on after the end"),
    "jpeg_mpo.jpg": (lambda: jpeg_with(0xE2, b"MPF\0" + bytes(40)) + jpeg_file(), "several pictures"),
    "png_animated.png": (lambda: png_file(GREY, before=chunk(b"acTL", struct.pack(">II", 2, 0))), "2 pictures"),
    "tiff_long_strip.tif": (lambda: tiff_file(data=GREY.tobytes() + bytes(48)), "another length"),
    "tiff_deflate_long.tif": (lambda: tiff_file(data=zlib.compress(GREY.tobytes() + b"1"), t259=8), "more data"),
    "tiff_pages.tif": (lambda: tiff_file(following=8 + 1920), "pages"),
    "dicom_long.dcm": (lambda: dicom_file(pixels=SMOOTH.tobytes() + bytes(64)), "64 bytes of pixels beyond"),
    "dicom_another_frame.dcm": (lambda: dicom_file(pixels=SMOOTH.tobytes() * 2), "bytes of pixels beyond"),
    "dicom_rle_long.dcm": (lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes() + b"12345")])], RLELossless), "more bytes"),
    "dicom_rle_segments.dcm": (lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes())] * 2)], RLELossless), "2 RLE segments"),
    "dicom_jpeg_tail.dcm": (lambda: encoded([jpeg_file() + b"tail"], JPEGBaseline8Bit), "goes on after its end"),
    "dicom_fragment_too_many.dcm": (
        lambda: dicom_file(syntax=JPEGBaseline8Bit, pixels=encapsulate([jpeg_file()] * 2, has_bot=False), Rows=64),
        "goes on after its end",
    ),
    "dicom_deflated_tail.dcm": (lambda: deflated(dicom_file()) + b"tail", "goes on after the end"),
    # another size than the header says
    "dicom_jpeg_size.dcm": (lambda: encoded([jpeg_file(GREY)], JPEGBaseline8Bit), "another size"),
    "dicom_jpeg_turned.dcm": (lambda: encoded([jpeg_file(GREY.T.copy())], JPEGBaseline8Bit, GREY), "another size"),
    "dicom_jpeg_colour.dcm": (lambda: encoded([jpeg_file(np.dstack([SMOOTH] * 3))], JPEGBaseline8Bit), "another size"),
    "dicom_j2k_size.dcm": (lambda: encoded([j2k_file(GREY)], JPEG2000), "another size"),
    "dicom_frames_missing_3d.dcm": (
        lambda: encoded([jpeg_file()], JPEGBaseline8Bit, NumberOfFrames=2), "holds 1 of 2 frames"
    ),
    "tiff_strips_missing.tif": (lambda: tiff_file(t278=10), "1 strips or tiles; its size asks for 4"),
    "tiff_overlap.tif": (lambda: tiff_file(t278=20, t273=(8, 8), t279=(960, 960)), "on top of each other"),
    "nifti_in_header.nii": (lambda: nifti_file(offset=0), "inside its header"),
    "nifti_half_an_offset.nii": (lambda: nifti_file(offset=352.5), "inside its header"),
    "nifti_extension.nii": (
        lambda: nifti_file(offset=384, between=b"\1\0\0\0" + struct.pack("<ii", 4096, 6) + bytes(24)), "extensions"
    ),
    "dicom_table_3d.dcm": (
        lambda: encoded([jpeg_file()] * 2, JPEGBaseline8Bit, NumberOfFrames=2).replace(
            struct.pack("<II", 0, 8 + len(jpeg_file())), struct.pack("<II", 0, 0)
        ),
        "offset table that points elsewhere",
    ),
    "dicom_extended_table_3d.dcm": (
        lambda: dicom_file(
            syntax=JPEGBaseline8Bit, pixels=encapsulate([jpeg_file()] * 2, has_bot=False), NumberOfFrames=2,
            ExtendedOffsetTable=struct.pack("<QQ", 0, 0), ExtendedOffsetTableLengths=struct.pack("<QQ", 9, 9),
        ),
        "extended offset table that points elsewhere",
    ),
    # much from little
    "png_bomb.png": (lambda: png_file(GREY, size=(SIDE, SIDE)), "of memory to be read"),
    "png_inflates.png": (lambda: png_file(GREY, idat=zlib.compress(bytes(ZEROS), 9)), "more data than its header"),
    "png_text_bomb.png": (lambda: png_file(GREY, before=chunk(b"iTXt", text_bomb())), "few bytes unpack"),
    "jpeg_bomb.jpg": (lambda: jpeg_of_size(SIDE, SIDE), "of memory to be read"),
    "jpeg_progressive_bomb.jpg": (lambda: jpeg_of_size(10_000, 9_000, progressive=True), "of memory to be read|damaged"),
    "jpeg_scans.jpg": (lambda: jpeg_scans(700), "scans of a large image|of memory"),
    "tiff_bomb.tif": (lambda: tiff_file(t256=SIDE, t257=SIDE, t278=SIDE), "of memory to be read"),
    "tiff_inflates.tif": (lambda: tiff_file(data=zlib.compress(bytes(ZEROS), 9), t259=8), "more data than its header"),
    "tiff_tile.tif": (
        lambda: tiff_file(t322=1_000_000, t323=1_000_000, t324=8, t325=1920, t273=(), t278=(), t279=()),
        "of memory to be read",
    ),
    "gzip_bomb.nii.gz": (lambda: zipped(nifti_file() + bytes(ZEROS)), "goes on after its last voxel"),
    "gzip_far_voxels.nii.gz": (lambda: zipped(nifti_file(offset=2.0**40)), "of memory to be read"),
    "nifti_bomb.nii": (lambda: nifti_file((30_000, 30_000, 30_000), data=b""), "of memory to be read"),
    "dicom_bomb.dcm": (lambda: dicom_file(Rows=SIDE, Columns=SIDE), "of memory to be read"),
    "dicom_frames_bomb_3d.dcm": (lambda: dicom_file(NumberOfFrames=500_000), "of memory to be read"),
    "dicom_jpeg_bomb.dcm": (lambda: encoded([jpeg_of_size(SIDE, SIDE)], JPEGBaseline8Bit), "another size"),
    "dicom_rle_bomb.dcm": (lambda: encoded([rle_frame([b"\x81\0" * 400_000])], RLELossless), "more bytes"),
    "dicom_deflated_bomb.dcm": (
        lambda: deflated(dicom_file(pixels=bytes(ZEROS))), "bytes of pixels beyond"
    ),
    "dicom_palette_bomb.dcm": (palette_bomb, "more colours than a palette"),
    "npz_declares.npz": (
        lambda: npz_file({"test_images.npy": npy(np.zeros((1, 1, 1), np.uint8)).replace(b"(1, 1, 1)", b"(9, 9, 9)")}),
        "another size than it declares",
    ),
    "npz_bzip2.npz": (lambda: npz_file(method=zipfile.ZIP_BZIP2), "compressed in another way"),
    "npz_lzma.npz": (lambda: npz_file(method=zipfile.ZIP_LZMA), "compressed in another way"),
    # kinds that can't be read rightly
    "jpeg_cmyk.jpg": (lambda: _cmyk("JPEG"), "CMYK"),
    "jpeg_12_bits.jpg": (lambda: jpeg_file().replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"), "12 bits"),
    "jpeg_lossless.jpg": (lambda: jpeg_file().replace(b"\xff\xc0", b"\xff\xc3"), "lossless"),
    "tiff_cmyk.tif": (lambda: _cmyk("TIFF"), "CMYK"),
    "tiff_lab.tif": (lambda: tiff_file(np.dstack([GREY] * 3), t262=8), r"CIE L\*a\*b"),
    "tiff_premultiplied.tif": (lambda: tiff_file(np.dstack([GREY] * 4), t338=1), "multiplied by alpha"),
    "tiff_fax.tif": (lambda: tiff_file(t259=4), "CCITT"),
    "tiff_reverse_bits.tif": (lambda: tiff_file(t266=2), "reverse order"),
    "tiff_five_channels.tif": (lambda: tiff_file(np.dstack([GREY] * 5)), "5 channels"),
    "png_palette.png": (
        lambda: png_file(GREY, colour=3, before=chunk(b"PLTE", bytes(range(30)))), "palette does not have"
    ),
    "png_unknown_chunk.png": (lambda: png_file(GREY, before=chunk(b"ABCD", b"")), "critical chunk"),
    "png_damaged_exif.png": (lambda: png_file(GREY, after=chunk(b"eXIf", b"II*\0\xff\0\0\0")), "EXIF"),
}
"""By file name: what makes the bytes, and a pattern that the reason must match."""


def _cmyk(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([GREY] * 4), "CMYK").save(buffer, kind)
    return buffer.getvalue()


READ: dict[str, Made] = {
    "png_fields.png": lambda: png_file(GREY, after=chunk(b"eXIf", exif_block(2_000, 1, 60_000)[6:])),
    "png_profile_bomb.png": lambda: png_file(GREY, before=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(ZEROS), 9))),
    "png_interlaced.png": lambda: png_file(GREY, interlaced=True),
    "jpeg_exif.jpg": lambda: jpeg_with(0xE1, exif_block()),
    "jpeg_exif_bomb.jpg": lambda: jpeg_with(0xE1, exif_block(5_000, 1, 65_000)),
    "jpeg_padded.jpg": lambda: jpeg_file() + bytes(7),
    "tiff_fields.tif": lambda: tiff_file(repeat=15_000),
    "tiff_16_bit_colour.tif": lambda: tiff_file(DEEP[..., :3]),
    "gzip_two_members.nii.gz": lambda: zipped(nifti_file()[:500]) + zipped(nifti_file()[500:]),
    "nifti_extension.nii": lambda: nifti_file(
        offset=384, between=b"\1\0\0\0" + struct.pack("<ii", 32, 6) + bytes(24)
    ),
    "dicom_items.dcm": lambda: item_bomb(20_000),
    "dicom_odd.dcm": lambda: dicom_file(SMOOTH[:63, :63].copy()),
    "dicom_jpeg.dcm": lambda: encoded([jpeg_file()], JPEGBaseline8Bit),
    "dicom_j2k.dcm": lambda: encoded([j2k_file()], JPEG2000Lossless),
    "dicom_rle.dcm": lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes())])], RLELossless),
    "dicom_deflated.dcm": lambda: deflated(dicom_file()),
    "npz.npz": npz_file,
}
"""Files that look odd, or are much work, and are read nevertheless."""
