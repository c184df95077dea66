"""PNG, JPEG and TIFF at the depth that they store: every bit of every kind that is read, and what is left aside."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_helpers import KEY, codes, png, protocol
from image_makers import DEEP, GREY, chunk, exif_block, jpeg_file, jpeg_with, lzw_of, png_file, tiff_file
from PIL import Image, ImageOps

from medharden.data import load_cohort
from medharden.data.formats.files import read_file
from medharden.data.formats.image import StoredImage, quiet_readers
from medharden.data.formats.picture import TRANSPARENCY

COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


def read(data: bytes, folder: Path, name: str = "a") -> StoredImage:
    (folder / name).write_bytes(data)
    with quiet_readers():
        return read_file(folder / name, 2)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def planes(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]


# --- PNG ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_of_any_channels_is_read_at_its_own_depth(tmp_path, bits, channels, interlaced):
    array = DEEP[..., :channels].astype(np.uint8 if bits == 8 else np.uint16)
    image = read(png_file(array, interlaced=interlaced), tmp_path)
    plain = array[..., : 1 if channels < 3 else 3]
    np.testing.assert_array_equal(image.values, planes(plain[..., 0] if channels < 3 else plain))
    assert (image.window.low, image.window.high) == (0, 2**bits - 1)
    assert image.notes == ((TRANSPARENCY,) if channels in (2, 4) else ())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_of_few_bits_and_palettes_are_what_pillow_shows(tmp_path, bits):
    places = GREY & np.uint8(2**bits - 1)
    picture = Image.fromarray(places, "P")
    picture.putpalette(bytes(np.random.default_rng(1).integers(0, 256, 3 * 2**bits, dtype=np.uint8)))
    data = saved(picture, "PNG", bits=bits)
    np.testing.assert_array_equal(read(data, tmp_path).values, planes(np.asarray(picture.convert("RGB"))))
    rows = np.packbits(np.unpackbits(places[..., None], axis=-1)[..., -bits:].reshape(len(places), -1), axis=-1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    grey = read(png_file(places, idat=packed, depth=bits), tmp_path)
    np.testing.assert_array_equal(grey.values[0], places * (255 // (2**bits - 1)))


def test_an_opaque_alpha_channel_is_no_finding_and_one_that_hides_is(tmp_path):
    for top, kind in ((255, np.uint8), (65535, np.uint16)):
        grey = DEEP[..., 0].astype(kind)
        opaque, hiding = np.full_like(grey, top), np.full_like(grey, top)
        hiding[3, 4] = top - 1
        assert read(png_file(np.dstack([grey, opaque])), tmp_path).notes == ()
        assert read(png_file(np.dstack([grey] * 3 + [opaque])), tmp_path).notes == ()
        assert read(png_file(np.dstack([grey, hiding])), tmp_path).notes == (TRANSPARENCY,)
        assert read(tiff_file(np.dstack([grey] * 3 + [opaque]), t338=2), tmp_path).notes == ()
        assert read(tiff_file(np.dstack([grey, hiding]), t262=1, t338=2), tmp_path).notes == (TRANSPARENCY,)


@pytest.mark.parametrize(("bits", "there"), [(8, True), (8, False), (16, True)])
def test_a_colour_that_counts_as_transparent_is_a_finding_where_it_occurs(tmp_path, bits, there):
    array = (GREY // 2).astype(np.uint8 if bits == 8 else np.uint16)
    key = struct.pack(">H", int(array[5, 6]) if there else 200)
    assert read(png_file(array, before=chunk(b"tRNS", key)), tmp_path).notes == ((TRANSPARENCY,) if there else ())
    colour = np.dstack([array] * 3)
    assert read(png_file(colour, before=chunk(b"tRNS", key * 3)), tmp_path).notes == ((TRANSPARENCY,) if there else ())
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", b"\xff" * 5 + b"\x80")
    places = np.full((4, 4), 5 if there else 4, np.uint8)
    assert read(png_file(places, colour=3, before=palette), tmp_path).notes == ((TRANSPARENCY,) if there else ())


def test_transparency_that_hides_something_is_a_finding_of_the_cohort(tmp_path):
    for n in range(10):
        for name in ("a", "b"):
            png(tmp_path / name / f"{n}.png", 100 * ord(name) + n)
    assert TRANSPARENCY not in codes(load_cohort(tmp_path, protocol(), key=KEY))
    (tmp_path / "a" / "0.png").write_bytes(png_file(np.dstack([GREY[:12, :10], GREY[12:24, :10]])))
    (finding,) = [f for f in load_cohort(tmp_path, protocol(), key=KEY).record.findings if f.code == TRANSPARENCY]
    assert finding.message.startswith("1 of 20 pictures have pixels that their alpha channel hides or dims")


# --- orientation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", range(1, 10))
def test_orientation_is_applied_as_pillow_applies_it_wherever_it_is_said(tmp_path, turned):
    exif = exif_block(1, turned)
    xmp = f'<x tiff:Orientation="{turned}"/>'.encode()
    text = b"XML:com.adobe.xmp\0"
    files = [
        jpeg_with(0xE1, exif),
        jpeg_with(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp),
        png_file(COLOUR, after=chunk(b"eXIf", exif[6:])),
        png_file(GREY, before=chunk(b"iTXt", text + b"\0\0\0\0" + xmp)),
        png_file(GREY, before=chunk(b"iTXt", text + b"\1\0\0\0" + zlib.compress(xmp))),
        png_file(GREY, before=chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 30\n" + exif.hex().encode())),
        tiff_file(COLOUR, t274=turned),
    ]
    for data in files:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            upright = np.asarray(ImageOps.exif_transpose(picture))
        np.testing.assert_array_equal(read(data, tmp_path).values, planes(upright))


def test_deep_pictures_are_turned_too(tmp_path):
    deep = np.ascontiguousarray(DEEP[..., :3])
    image = read(tiff_file(deep, t274=6), tmp_path)
    np.testing.assert_array_equal(image.values, planes(np.rot90(deep, -1)))


# --- JPEG --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (40, 48)])
def test_jpeg_of_every_usual_kind_gives_the_values_that_pillow_gives(tmp_path, size):
    grey, colour = GREY[: size[0], : size[1]].copy(), COLOUR[: size[0], : size[1]].copy()
    kinds: list[dict[str, object]] = [{"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 95}, {}]
    files = [jpeg_file(array, **kind) for kind in kinds for array in (grey, colour)]
    files += [jpeg_file(colour, subsampling=kind) for kind in (0, 1, 2, "4:1:1")]
    files.append(jpeg_file(colour, keep_rgb=True))
    for data in files:
        with Image.open(io.BytesIO(data)) as picture:
            shown = np.asarray(picture)
        found = read(data, tmp_path).values
        np.testing.assert_array_equal(np.broadcast_to(found, planes(shown).shape), planes(shown))


def test_what_only_looks_like_damage_in_a_jpeg_is_none(tmp_path):
    whole = jpeg_file(GREY)
    before = read(whole, tmp_path)
    scan = whole.index(b"\xff\xda")
    odd = bytearray(whole)
    odd[scan + 8] = 1  # spectral selection, which a baseline image does not use; libjpeg warns of it
    assert read(bytes(odd), tmp_path).pixels == before.pixels
    filled = whole.replace(b"\xff\xdb", b"\xff\xff\xff\xdb")  # any number of 0xFF may stand before a marker
    assert read(filled, tmp_path).pixels == before.pixels


# --- TIFF --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("compression", [1, 8])
def test_tiff_of_any_number_format_is_read_with_sign_and_depth(tmp_path, kind, order, compression):
    rng = np.random.default_rng(2)
    limits = None if kind[0] == "f" else np.iinfo(kind)
    array = rng.normal(0, 9, (11, 13)).astype(kind) if limits is None else rng.integers(
        limits.min, limits.max, (11, 13), dtype=kind, endpoint=True
    )  # fmt: skip
    image = read(tiff_file(array, order=order, compression=compression), tmp_path)
    np.testing.assert_array_equal(image.values[0], array.astype(np.float32))
    known = {"u1": 255, "u2": 65535}.get(kind)
    assert (image.window.high if image.window else None) == known


@pytest.mark.parametrize("order", ["<", ">"])
def test_white_is_zero_is_turned_round_at_any_depth(tmp_path, order):
    shallow = read(tiff_file(GREY, t262=0, order=order), tmp_path)
    assert not shallow.inverted
    np.testing.assert_array_equal(shallow.values[0], 255 - GREY)
    deep = read(tiff_file(DEEP[..., 0].copy(), t262=0, order=order), tmp_path)
    assert deep.inverted
    np.testing.assert_array_equal(deep.values[0], DEEP[..., 0])


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_colour_in_tiles_strips_and_planes_is_put_together(tmp_path, depth):
    array = DEEP[..., :3].astype(depth)
    height, width, item = 20, 24, array.itemsize
    tiles = [
        np.pad(array[y : y + 16, x : x + 16], ((0, max(0, y + 16 - height)), (0, max(0, x + 16 - width)), (0, 0)))
        for y in (0, 16) for x in (0, 16)
    ]  # fmt: skip
    one = 16 * 16 * 3 * item
    none: tuple[int, ...] = ()
    laid = {
        "tiles": tiff_file(
            array, data=b"".join(t.tobytes() for t in tiles), t322=16, t323=16,
            t324=tuple(8 + k * one for k in range(4)), t325=(one,) * 4, t273=none, t278=none, t279=none,
        ),
        "strips": tiff_file(
            array, t278=7, t273=tuple(8 + k * 7 * width * 3 * item for k in range(3)),
            t279=tuple(rows * width * 3 * item for rows in (7, 7, 6)),
        ),
        "planes": tiff_file(
            array, data=np.moveaxis(array, -1, 0).tobytes(), t284=2,
            t273=tuple(8 + k * height * width * item for k in range(3)), t279=(height * width * item,) * 3,
        ),
    }  # fmt: skip
    for data in laid.values():
        np.testing.assert_array_equal(read(data, tmp_path).values, planes(array))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "F"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_what_pillow_wrote_is_read_as_pillow_reads_it(tmp_path, mode, compression):
    if compression == "jpeg" and mode not in ("L", "RGB"):
        pytest.skip("JPEG has no such mode")
    rng = np.random.default_rng(3)
    picture = {
        "1": Image.fromarray(GREY).convert("1"),
        "P": Image.fromarray(COLOUR).convert("P"),
        "I;16": Image.fromarray(DEEP[..., 0].copy()),
        "F": Image.fromarray(rng.random((9, 11), dtype=np.float32)),
    }.get(mode, Image.fromarray(COLOUR if mode == "RGB" else GREY))
    for options in ({}, {"strip_size": 400}, {"tiffinfo": {317: 2}}):
        if options and (compression in ("raw", "packbits", "jpeg") or (mode == "1" and "tiffinfo" in options)):
            continue
        data = saved(picture, "TIFF", compression=compression, **options)
        with Image.open(io.BytesIO(data)) as again:
            shown = np.asarray(again.convert({"1": "L", "P": "RGB"}.get(mode, again.mode)))
        np.testing.assert_array_equal(read(data, tmp_path).values, planes(shown))


def test_differences_of_floating_point_bytes_are_undone(tmp_path):
    values = np.random.default_rng(4).normal(0, 50, (6, 10)).astype(np.float32)
    high_first = values.astype(">f4").view(np.uint8).reshape(6, 10, 4).swapaxes(1, 2).reshape(6, 40)
    rows = np.diff(high_first, axis=1, prepend=np.uint8(0)).astype(np.uint8)
    image = read(tiff_file(values, data=zlib.compress(rows.tobytes()), t259=8, t317=3), tmp_path)
    np.testing.assert_array_equal(image.values[0], values)


def test_twelve_bits_and_lzw_and_deep_palettes(tmp_path):
    values = (DEEP[..., 0] >> 4).astype(np.uint16)
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(20, 24, 2), axis=-1)[..., 4:].reshape(20, -1)
    image = read(tiff_file(values, data=np.packbits(bits, axis=-1).tobytes(), t258=12), tmp_path)
    np.testing.assert_array_equal(image.values[0], values)
    assert image.window.high == 4095
    np.testing.assert_array_equal(read(tiff_file(GREY, data=lzw_of(GREY), t259=5), tmp_path).values[0], GREY)
    palette = tuple(int(v) for v in np.random.default_rng(5).integers(0, 65536, 768))
    colours = np.array(palette).reshape(3, 256)[:, GREY]
    deep = read(tiff_file(GREY, t262=3, t320=palette), tmp_path)
    np.testing.assert_array_equal(deep.values, colours)
    assert deep.window.high == 65535
