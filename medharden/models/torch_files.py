"""Torch files, new (an archive) and old (pickles in a row): what they hold, and tensors over the file's own bytes.

Each tensor lies within values that the file holds, once: its size is known to be honest before anything is made of it.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medharden.models.arrays import ArrayRef, array_tensor
from medharden.models.unpickling import LARGEST_PICKLE, StorageRef, TensorRef, Unreadable, foreign, unpickled

__all__ = ["TorchFile", "read_torch"]

_MAGIC = 0x1950A86A20F9469CFC6C
_ARCHIVE, _PICKLE = b"PK\x03\x04", b"\x80"
_OTHERS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes; convert the weights to a state dict",
    b"GGUF": "a GGUF file, which no image classifier is in",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "a gzip file; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
}
_REPEATS = 4  # how often a file may show its values under several names: tied weights
_ITEM = {
    "FloatStorage": 4,
    "DoubleStorage": 8,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
_DTYPE = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class TorchFile:
    """What a torch file holds.

    Attributes:
        content: plain values, with a `TensorRef` in the place of each tensor, an `ArrayRef` in that of NumPy's arrays.
        data: the file's bytes.
        places: where each storage's values begin in them, and their CRC-32, or 0 where none is known.
        left_out: names of the types of objects beside the weights, of which nothing was made.
    """

    content: Any
    data: bytes
    places: dict[str, tuple[int, int]]
    left_out: frozenset[str]

    def tensors(self, refs: Mapping[str, TensorRef]) -> dict[str, Tensor]:
        """Tensors over the file's own bytes, where these are aligned: to be read, not written to.

        Raises:
            Unreadable: they can't lie in this file so, or their values are damaged.
        """
        for ref in refs.values():
            _require_once(ref)
        if sum(math.prod(ref.size) * _ITEM[ref.storage.kind] for ref in refs.values()) > _REPEATS * len(self.data):
            raise Unreadable("a file whose tensors are larger than all that it holds")
        values = {storage.key: self._values(storage) for storage in {ref.storage for ref in refs.values()}}
        return {name: values[r.storage.key].as_strided(r.size, r.stride, r.offset) for name, r in refs.items()}

    def arrays(self, refs: Mapping[str, ArrayRef]) -> dict[str, Tensor]:
        """Tensors of NumPy's arrays, whose bytes stand among the names: to be read, not written to.

        Raises:
            Unreadable: they are not numeric, or not as long as they are said to be.
        """
        if sum(ref.bytes for ref in refs.values()) > _REPEATS * len(self.data):
            raise Unreadable("a file whose arrays are larger than all that it holds")
        made = {}
        for name, ref in refs.items():
            tensor = array_tensor(ref)
            if isinstance(tensor, str):
                raise Unreadable(f"a file with {tensor}")
            made[name] = tensor
        return made

    def _values(self, storage: StorageRef) -> Tensor:
        if storage.kind not in _DTYPE:
            raise Unreadable("a file of complex numbers, where real ones are needed")
        start, checksum = self.places[storage.key]
        size = storage.count * _ITEM[storage.kind]
        if size == 0:
            return torch.empty(0, dtype=_DTYPE[storage.kind])
        if checksum and zlib.crc32(memoryview(self.data)[start : start + size]) != checksum:
            raise Unreadable("damaged: a checksum is wrong")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the bytes can't be written to: nobody does
            raw = torch.frombuffer(self.data, dtype=torch.uint8, count=size, offset=start)
        if storage.kind == "BoolStorage":
            return raw != 0
        return (raw if start % _ITEM[storage.kind] == 0 else raw.clone()).view(_DTYPE[storage.kind])


def read_torch(data: bytes, name: str) -> TorchFile:
    """Reads what `torch.save` wrote.

    Args:
        data: the file.
        name: its name, for errors.

    Raises:
        ModelError: it names Python objects beyond tensors and plain values.
        Unreadable: anything else about it.
    """
    if data.startswith(_ARCHIVE):
        return _read_archive(data, name)
    if data.startswith(_PICKLE):
        return _read_row(data, name)
    for start, form in _OTHERS.items():
        if data.startswith(start):
            raise Unreadable(form)
    raise Unreadable("damaged, or no torch file")


def _read_archive(data: bytes, name: str) -> TorchFile:
    files = _stored(data)
    pickles = [path for path in files if path.count("/") == 1 and path.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Unreadable("damaged, or no torch file")
    start, size, checksum = files[pickles[0]]
    if size > LARGEST_PICKLE:
        raise Unreadable(
            f"a file with more than {LARGEST_PICKLE} bytes of names and shapes, among which NumPy's arrays count too; "
            "where the weights are such, save them as tensors: {name: torch.as_tensor(array)}"
        )
    described = data[start : start + size]
    if checksum and zlib.crc32(described) != checksum:
        raise Unreadable("damaged: a checksum is wrong")
    found = unpickled(io.BytesIO(described), name)
    folder = pickles[0].removesuffix("data.pkl")
    order, length, _ = files.get(f"{folder}byteorder", (0, 0, 0))
    if data[order : order + length] not in (b"", b"little"):
        raise Unreadable("a file of a big-endian machine")
    places = {}
    for key, storage in found.storages.items():
        start, size, checksum = files.get(f"{folder}data/{key}", (0, -1, 0))
        if size != storage.count * _ITEM[storage.kind]:
            raise Unreadable("damaged: it describes other values than it holds")
        places[key] = (start, checksum)
    return TorchFile(found.value, data, places, found.left_out)


def _stored(data: bytes) -> dict[str, tuple[int, int, int]]:
    """The archive's files, by path: first byte, length, CRC-32. Torch stores each as it is, once."""
    files: dict[str, tuple[int, int, int]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _refuse_programs(archive.namelist())
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    raise Unreadable("a compressed or encrypted archive, where torch stores values as they are")
                if info.filename in files:
                    raise Unreadable("an archive that holds a file twice")
                named, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
                start = info.header_offset + 30 + named + extra
                if info.compress_size != info.file_size or start + info.file_size > len(data):
                    raise Unreadable("damaged: a part of it reaches beyond its end")
                files[info.filename] = (start, info.file_size, info.CRC)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError, OverflowError) as error:
        raise Unreadable("damaged, or no torch file") from error
    return files


def _refuse_programs(paths: list[str]) -> None:
    ends = {path.rpartition("/")[2] for path in paths}
    if "constants.pkl" in ends:
        raise Unreadable(
            "a TorchScript archive, a program that may read and write files, and no program of a model file is run. "
            "Where it was made: torch.save(torch.jit.load(path).state_dict(), 'model.pt'), and its network as --arch"
        )
    if ends & {"archive_format", "serialized_exported_program.json"}:
        raise Unreadable(
            "an exported program (.pt2), whose parts torch.export.load unpickles where the file says so, and no pickle "
            "is run. Where it was made: torch.save(torch.export.load(path).state_dict, 'model.pt'), and its network as "
            "--arch; or give torch.export.load(path).module() to Classifier.from_module"
        )


def _read_row(data: bytes, name: str) -> TorchFile:
    """The form before torch 1.6: five pickles, then each storage after its length."""
    stream = io.BytesIO(data)
    if unpickled(stream, name).value != _MAGIC:
        raise foreign(name)
    unpickled(stream, name)
    system = unpickled(stream, name).value
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Unreadable("a file of a big-endian machine")
    found = unpickled(stream, name)
    keys = unpickled(stream, name).value
    return TorchFile(found.value, data, _places(data, stream.tell(), keys, found.storages), found.left_out)


def _places(data: bytes, start: int, keys: Any, storages: dict[str, StorageRef]) -> dict[str, tuple[int, int]]:
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise Unreadable("damaged: it describes other values than it holds")
    places = {}
    for key in keys:
        size = storages[key].count * _ITEM[storages[key].kind]
        if int.from_bytes(data[start : start + 8], "little") != storages[key].count or start + 8 + size > len(data):
            raise Unreadable("damaged: it describes other values than it holds")
        places[key] = (start + 8, 0)
        start += 8 + size
    return places


def _require_once(ref: TensorRef) -> None:
    """Refuses a tensor that leaves its storage, or that shows a value of it more than once."""
    if 0 in ref.size:
        return
    reach = 0
    for stride, size in sorted((st, si) for st, si in zip(ref.stride, ref.size, strict=True) if si > 1):
        if stride <= reach:
            raise Unreadable("a file with an expanded tensor, larger than its values; save it after .contiguous()")
        reach += (size - 1) * stride
    if ref.offset + reach >= ref.storage.count:
        raise Unreadable("damaged: a tensor reaches beyond its values")
