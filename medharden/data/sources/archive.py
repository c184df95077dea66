"""MedMNIST archives (`.npz`): arrays of images and labels for each split, read without pickle."""

from __future__ import annotations

import io
import math
import shutil
import struct
import tempfile
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from medharden.data.formats.image import StoredImage, digest_array
from medharden.data.formats.limits import Hold
from medharden.data.formats.pictures import collapse
from medharden.data.formats.window import Window
from medharden.data.sources.findings import FindingReader
from medharden.data.sources.folder import Entry, Listing
from medharden.errors import DataError, Problem
from medharden.protocol import Protocol, Task
from medharden.sizes import MAX_DECODED, shown_bytes

__all__ = ["list_archive"]

_SPLITS = ("train", "val", "test")
_LARGEST_READ = 2**21
_CASE_BYTES = 3584  # what a case takes in memory beside its image
_MALFORMED = (
    *(ArithmeticError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(EOFError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),  # the last of NumPy's header parser
)

Arrays = dict[str, npt.NDArray[Any]]


class _Guarded(io.BufferedReader):
    """A file of which no large part is read at once, such as a table of contents of millions of members."""

    def read(self, size: int | None = -1, /) -> bytes:
        asked = _LARGEST_READ + 1 if size is None or size < 0 else size
        data = super().read(min(asked, _LARGEST_READ + 1))
        if len(data) > _LARGEST_READ:
            raise DataError("the .npz file lists more members than a MedMNIST archive has")
        return data


def list_archive(
    path: Path, protocol: Protocol, name: Callable[[str], str], memory_limit: int, max_decoded: int = MAX_DECODED
) -> Listing:
    """The cases of a MedMNIST archive; arrays larger than the memory limit are unpacked to disk.

    Raises:
        DataError: no such archive, labels that do not fit the task, shapes that do not fit `input.dims`, members that
            unpack to more than a file may, or that fail their checksums.
    """
    try:
        with _Guarded(io.FileIO(path)) as stream, zipfile.ZipFile(stream) as archive:
            arrays = _load(archive, memory_limit, max_decoded)
    except _MALFORMED as error:
        if str(error).startswith("Bad CRC"):
            raise DataError("the .npz file fails its checksum (zip): it was damaged after it was written") from None
        raise DataError(f"the .npz file can't be read: truncated or damaged ({type(error).__name__})") from None
    splits = [s for s in _SPLITS if f"{s}_images" in arrays]
    if "train" not in splits:
        raise DataError(
            "the .npz file lacks train_images; expected train_images, train_labels, and so on for val, test"
        )
    for split in splits:
        _check_shape(arrays[f"{split}_images"], protocol.input.dims)

    def read(entry: Entry, hold: Hold) -> StoredImage:
        image = arrays[f"{entry.split}_images"][entry.row]
        hold.take_values(image.shape, image.dtype.itemsize)
        return _stored(image, protocol.input.dims)

    def digest(entry: Entry) -> str:
        return digest_array(arrays[f"{entry.split}_images"][entry.row])

    if protocol.task.multilabel:
        found = _of_findings(splits, arrays, protocol.task, name, read)
        return replace(found, digest=digest)
    labels = {s: _labels(s, arrays) for s in splits}
    highest = max(int(v.max(initial=0)) for v in labels.values())
    names = protocol.task.classes or tuple(str(k) for k in range(highest + 1))
    if highest >= len(names):
        raise DataError(f"the labels go up to {highest}; task.classes has {len(names)} names: {list(names)}")
    entries = tuple(
        Entry(text=f"{split}/{row}", label=names[label], split=split, row=row)
        for split in splits
        for row, label in enumerate(labels[split].tolist())
    )
    return Listing(source="npz", classes=names[: highest + 1], entries=entries, read=read, digest=digest)


def _of_findings(
    splits: list[str],
    arrays: Arrays,
    task: Task,
    name: Callable[[str], str],
    read: Callable[[Entry, Hold], StoredImage],
) -> Listing:
    """Cases with a row of labels each, one number a finding."""
    reader, findings = FindingReader(task), task.classes or ()
    entries: list[Entry] = []
    problems: list[Problem] = []
    left_out: list[Problem] = []
    for split in splits:
        labels, count = arrays.get(f"{split}_labels"), len(arrays[f"{split}_images"])
        found = [] if labels is None else list(labels.shape)
        if labels is None or (found != [count, len(findings)] and (found != [count] or len(findings) > 1)):
            raise DataError(
                f"expected {split}_labels of shape {[count, len(findings)]}, a number a finding of task.classes; "
                f"found {found or 'none'}"
            )
        for row, numbers in enumerate(labels.reshape(count, len(findings)).astype(np.float64)):
            text = f"{split}/{row}"
            said = reader.from_numbers(numbers)
            if said.problem:
                apart = left_out if reader.excludes(said.problem) else problems
                apart.append(Problem(name(text), said.problem, split=split))
            else:
                entries.append(Entry(text=text, label=said.present, split=split, row=row, masked=said.masked))
    return Listing("npz", findings, tuple(entries), read, tuple(problems), reader.noted(), tuple(left_out))


def _load(archive: zipfile.ZipFile, memory_limit: int, max_decoded: int) -> Arrays:
    members = {f"{s}_{what}.npy" for s in _SPLITS for what in ("images", "labels")}
    found = [info for info in archive.infolist() if info.filename in members]
    if len({info.filename for info in found}) < len(found):
        raise DataError("the .npz file holds two arrays of one name")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in found):
        raise DataError("the .npz file is compressed in another way than NumPy does it")
    total, cases = sum(info.file_size for info in found), 0
    for info in found:
        with archive.open(info) as stream:
            shape = _check_header(stream, info)
        cases += shape[0] if shape and info.filename.endswith("_images.npy") else 0
    if total + cases * _CASE_BYTES > max_decoded:
        raise DataError(
            f"the .npz file unpacks to {shown_bytes(total)} and {cases} cases, more than one file may become "
            f"({shown_bytes(max_decoded)}; raise --max-decoded if it is what it should be)"
        )
    if total <= memory_limit:
        return {info.filename.removesuffix(".npy"): _in_memory(archive, info) for info in found}
    folder = Path(tempfile.mkdtemp(prefix="medharden-"))
    arrays = {info.filename.removesuffix(".npy"): _on_disk(archive, info, folder) for info in found}
    for array in arrays.values():
        weakref.finalize(array, shutil.rmtree, folder, True)
    return arrays


def _check_header(stream: IO[bytes], info: zipfile.ZipInfo) -> tuple[int, ...]:
    """The shape of an array of plain numbers, whose declared size is the size that is there, before it is unpacked."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise DataError("the .npz file holds Python objects or text, which are never unpickled; expected numbers")
    whole = tuple(int(extent) for extent in shape)
    if min(whole, default=0) < 0 or stream.tell() + math.prod(whole) * dtype.itemsize != info.file_size:
        raise DataError("an array of the .npz file has another size than it declares")
    return whole


def _in_memory(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(info) as stream:
        array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # the checksum is compared at the end alone
    return array


def _on_disk(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> npt.NDArray[Any]:
    target = folder / info.filename
    with archive.open(info) as stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out, 2**20)
    array: npt.NDArray[Any] = np.load(target, mmap_mode="r", allow_pickle=False)
    return array


def _labels(split: str, arrays: Arrays) -> npt.NDArray[np.int64]:
    images, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
    if labels is None or labels.ndim == 0 or len(labels) != len(images):
        found = "none" if labels is None or labels.ndim == 0 else str(len(labels))
        raise DataError(f"expected {len(images)} labels in {split}_labels, found {found}")
    if labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1):
        raise DataError(
            f"{split}_labels has shape {list(labels.shape)}: multi-label data; expected one class a case (or set "
            "task.kind: multilabel and name the findings in task.classes)"
        )
    whole = labels.reshape(-1)
    if whole.dtype.kind not in "biu" or (whole.size and int(whole.min()) < 0):
        raise DataError(f"{split}_labels must hold class numbers from 0, found {whole.dtype}")
    return whole.astype(np.int64)


def _check_shape(images: npt.NDArray[Any], dims: int) -> None:
    shape = list(images.shape)
    grey, colour = images.ndim == dims + 1, images.ndim == dims + 2 and shape[-1] == 3
    if dims == 3 and grey and shape[-1] == 3:
        raise DataError(f"the images have shape {shape}: colour images; input.dims is 3 (set input.dims: 2)")
    if not grey and not colour:
        hint = " (set input.dims: 3)" if dims == 2 and images.ndim == 4 else ""
        raise DataError(f"the images have shape {shape}; expected {dims} spatial dimensions a case{hint}")


def _stored(image: npt.NDArray[Any], dims: int) -> StoredImage:
    planes = np.moveaxis(image, -1, 0) if image.ndim == dims + 1 else image[None]
    kind = image.dtype.kind
    if kind == "f":
        window = None
    elif kind == "b":
        window = Window(0.0, 1.0)
    else:
        window = Window(float(np.iinfo(image.dtype).min), float(np.iinfo(image.dtype).max))
    values = collapse(planes.astype(np.float32))
    return StoredImage(values=values, window=window, format="npz", pixels=digest_array(image))
