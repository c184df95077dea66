"""Image files that mean harm, or came to it: each made in memory, the same bytes every time, by name.

`REFUSED` gives a reason to each file that must be refused; `READ` holds odd files that must be read. Both map a file
name to what makes its bytes. None of them is larger than a megabyte. A volume has `.nii` or `_3d` in its name.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from image_makers import (
    DEEP,
    GREY,
    SMOOTH,
    chunk,
    deflated,
    dicom_file,
    encoded,
    exif_block,
    flipped,
    item_bomb,
    j2k_file,
    jpeg_file,
    jpeg_of_size,
    jpeg_scans,
    jpeg_with,
    long_element,
    lzw_of,
    nifti_file,
    npy,
    npz_file,
    palette_bomb,
    png_file,
    rle_frame,
    rle_of,
    text_bomb,
    tiff_file,
    zipped,
)
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

Made = Callable[[], bytes]
SIDE = 20_000  # of a picture of 400 million pixels, which needs 3.2 GB
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
    "dicom_jpeg_cut.dcm": (lambda: encoded([jpeg_file(GREY)[:-200] + b"\xff\xd9"], JPEGBaseline8Bit, GREY), "damaged"),
    "dicom_j2k_cut.dcm": (lambda: encoded([j2k_file(GREY)[:-400]], JPEG2000Lossless, GREY), "cut off"),
    "dicom_j2k_cut_closed.dcm": (
        lambda: encoded([j2k_file(GREY)[:-400] + b"\xff\xd9"], JPEG2000Lossless, GREY),
        "cut off",
    ),
    "dicom_deflated_cut.dcm": (lambda: deflated(dicom_file())[:-20], "cut off"),
    # more than the header says
    "nifti_long.nii": (lambda: nifti_file() + b"\0", "goes on after its last voxel"),
    "gzip_long.nii.gz": (lambda: zipped(nifti_file() + b"\0"), "goes on after its last voxel"),
    "gzip_tail.nii.gz": (lambda: zipped(nifti_file()) + b"tail", "goes on after the end"),
    "gzip_second_member.nii.gz": (lambda: zipped(nifti_file()) + zipped(b"more"), "goes on after its last voxel"),
    "png_long.png": (lambda: png_file(GREY, size=(39, 48)), "more data than its header"),
    "png_two_streams.png": (
        lambda: png_file(GREY, idat=zlib.compress(bytes(40 * 49)) + zlib.compress(b"more")),
        "more data than its header",
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
    "dicom_rle_long.dcm": (
        lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes() + b"12345")])], RLELossless),
        "more bytes",
    ),
    "dicom_rle_segments.dcm": (
        lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes())] * 2)], RLELossless),
        "2 RLE segments",
    ),
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
        lambda: encoded([jpeg_file()], JPEGBaseline8Bit, NumberOfFrames=2),
        "holds 1 of 2 frames",
    ),
    "tiff_strips_missing.tif": (lambda: tiff_file(t278=10), "1 strips or tiles; its size asks for 4"),
    "tiff_overlap.tif": (lambda: tiff_file(t278=20, t273=(8, 8), t279=(960, 960)), "on top of each other"),
    "nifti_in_header.nii": (lambda: nifti_file(offset=0), "inside its header"),
    "nifti_half_an_offset.nii": (lambda: nifti_file(offset=352.5), "inside its header"),
    "nifti_extension.nii": (
        lambda: nifti_file(offset=384, between=b"\1\0\0\0" + struct.pack("<ii", 4096, 6) + bytes(24)),
        "extensions",
    ),
    "dicom_table_3d.dcm": (
        lambda: encoded([jpeg_file()] * 2, JPEGBaseline8Bit, NumberOfFrames=2).replace(
            struct.pack("<II", 0, 8 + len(jpeg_file())), struct.pack("<II", 0, 0)
        ),
        "offset table that points elsewhere",
    ),
    "dicom_extended_table_3d.dcm": (
        lambda: dicom_file(
            syntax=JPEGBaseline8Bit,
            pixels=encapsulate([jpeg_file()] * 2, has_bot=False),
            NumberOfFrames=2,
            ExtendedOffsetTable=struct.pack("<QQ", 0, 0),
            ExtendedOffsetTableLengths=struct.pack("<QQ", 9, 9),
        ),
        "extended offset table that points elsewhere",
    ),
    # what a decoder crashes over, or would make room for
    "dicom_jpeg_24_bits.dcm": (
        lambda: encoded([jpeg_file().replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x18")], JPEGBaseline8Bit),
        "of another kind",
    ),
    "dicom_jpeg_lossless.dcm": (
        lambda: encoded([jpeg_file().replace(b"\xff\xc0", b"\xff\xc3")], JPEGBaseline8Bit),
        "of another kind",
    ),
    "dicom_jfif_version.dcm": (
        lambda: encoded([jpeg_file().replace(b"JFIF\0\1", b"JFIF\0\5")], JPEGBaseline8Bit),
        "version of JFIF",
    ),
    "dicom_adobe_transform.dcm": (
        lambda: encoded([jpeg_with(0xEE, b"Adobe\0\x64\0\0\0\0\2")], JPEGBaseline8Bit),
        "colour transform",
    ),
    "dicom_claims_4_gib.dcm": (lambda: long_element(dicom_file()), "cut off"),
    "jpeg_lossless_strip.tif": (
        lambda: tiff_file(SMOOTH, data=jpeg_file().replace(b"\xff\xc0", b"\xff\xc3"), t259=7),
        "another size or kind",
    ),
    # much from little
    "png_bomb.png": (lambda: png_file(GREY, size=(SIDE, SIDE)), "of memory to be read"),
    "png_inflates.png": (lambda: png_file(GREY, idat=zlib.compress(bytes(ZEROS), 9)), "more data than its header"),
    "png_text_bomb.png": (lambda: png_file(GREY, before=chunk(b"iTXt", text_bomb())), "few bytes unpack"),
    "jpeg_bomb.jpg": (lambda: jpeg_of_size(SIDE, SIDE), "of memory to be read"),
    "jpeg_progressive_bomb.jpg": (
        lambda: jpeg_of_size(10_000, 9_000, progressive=True),
        "of memory to be read|damaged",
    ),
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
    "dicom_deflated_bomb.dcm": (lambda: deflated(dicom_file(pixels=bytes(ZEROS))), "bytes of pixels beyond"),
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
        lambda: png_file(GREY, colour=3, before=chunk(b"PLTE", bytes(range(30)))),
        "palette does not have",
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
    "nifti_extension.nii": lambda: nifti_file(offset=384, between=b"\1\0\0\0" + struct.pack("<ii", 32, 6) + bytes(24)),
    "dicom_items.dcm": lambda: item_bomb(20_000),
    "dicom_odd.dcm": lambda: dicom_file(SMOOTH[:63, :63].copy()),
    "dicom_jpeg.dcm": lambda: encoded([jpeg_file()], JPEGBaseline8Bit),
    "dicom_j2k.dcm": lambda: encoded([j2k_file()], JPEG2000Lossless),
    "dicom_rle.dcm": lambda: encoded([rle_frame([rle_of(SMOOTH.tobytes())])], RLELossless),
    "dicom_deflated.dcm": lambda: deflated(dicom_file()),
    "npz.npz": npz_file,
}
"""Files that look odd, or are much work, and are read nevertheless."""
