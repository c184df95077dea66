"""Makers of hostile files: small, the same bytes each time, by name. Tests read them, and a fuzzer starts from them."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "BUNDLES",
    "CHECKPOINTS",
    "PROTOCOLS",
    "SAFETENSORS",
    "YAML_BUNDLES",
    "archive",
    "bundle",
    "opcodes",
    "protocol",
    "row",
    "safetensors",
    "stored",
    "tensor",
]

HEAD = b"schema_version: 1\nname: a\ntitle: t\nintended_use: x\nthreat: {eps: 0.1}\n"
Maker = Callable[[], bytes]


# --- protocols ---------------------------------------------------------------------------------------------------


def protocol(more: bytes | str) -> bytes:
    """A valid protocol of five lines, and more behind it."""
    return HEAD + (more.encode() if isinstance(more, str) else more) + b"\n"


def _aliases() -> bytes:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    return protocol("\n".join(lines))


def _many(entry: str, count: int) -> str:
    return ", ".join(entry.format(n) for n in range(count))


PROTOCOLS: dict[str, Maker] = {
    "alias bomb": _aliases,
    "anchor": lambda: protocol("title2: &a b"),
    "alias": lambda: protocol("columns: {path: *a}"),
    "self-reference": lambda: protocol("x: &a [*a]"),
    "self-reference as key": lambda: protocol("? &a {*a : 1}\n: 1"),
    "merge": lambda: protocol("splits: {<<: {train: 0.6}}"),
    "merge list": lambda: protocol("<<: [{seed: 1}]"),
    "list key": lambda: protocol("? [a]\n: b"),
    "mapping key": lambda: protocol("{a: 1}: b"),
    "empty key": lambda: protocol("? \n: b"),
    "number key": lambda: protocol("1: b"),
    "key twice": lambda: protocol("seed: 1\n'seed': 2"),
    "impossible date": lambda: protocol("x: 2020-13-45"),
    "impossible time": lambda: protocol("x: 2020-01-01T99:99:99Z"),
    "date": lambda: protocol("title2: 2020-01-01"),
    "set": lambda: protocol("x: !!set {a, b}"),
    "binary": lambda: protocol("x: !!binary 'aGFsbG8='"),
    "omap": lambda: protocol("x: !!omap [a: 1]"),
    "pairs": lambda: protocol("x: !!pairs [a: 1]"),
    "python": lambda: protocol("x: !!python/object/apply:os.mkdir [ran]"),
    "python name": lambda: protocol("x: !!python/name:os.system"),
    "text tag": lambda: protocol("x: !!str 1"),
    "bare tag": lambda: protocol("x: ! 1"),
    "long tag": lambda: protocol("x: !<" + "a" * 500_000 + "> 1"),
    "tag line": lambda: b"%TAG ! tag:x,2000:\n---\n" + HEAD,
    "other version": lambda: b"%YAML 9.1\n---\n" + HEAD,
    "deep flow": lambda: protocol("x: " + "[" * 200_000),
    "deep flow closed": lambda: protocol("x: " + "[" * 400_000 + "]" * 400_000),
    "deep mappings": lambda: protocol("x: " + "{a: " * 100_000),
    "deep block": lambda: protocol("".join(" " * n + "a:\n" for n in range(1200))),
    "deep dashes": lambda: protocol("x:\n" + "- " * 400_000),
    "deep questions": lambda: protocol("? " * 400_000),
    "infinity": lambda: protocol("seed: .inf"),
    "not a number": lambda: protocol("seed: .NaN"),
    "overflow": lambda: protocol("threat2: 1.0e+400"),
    "400 digits": lambda: protocol("seed: 1" + "0" * 400),
    "a million digits": lambda: protocol("seed: " + "9" * 990_000),
    "a million decimals": lambda: protocol("seed: 0." + "9" * 990_000),
    "beyond a record": lambda: protocol("seed: 9007199254740992"),
    "hexadecimal": lambda: protocol("seed: 0x10"),
    "long hexadecimal": lambda: protocol("seed: 0x" + "f" * 990_000),
    "octal": lambda: protocol("seed: 0017"),
    "binary digits": lambda: protocol("seed: 0b11"),
    "minutes": lambda: protocol("seed: 1:30"),
    "minutes with a point": lambda: protocol("seed: 1:30.5"),
    "many minutes": lambda: protocol("seed: 1" + ":30" * 300_000),
    "null byte": lambda: protocol(b"x: a\x00b"),
    "escape": lambda: protocol(b"x: \x1b[31m"),
    "escaped escape": lambda: protocol('"\\e[31m": 1'),
    "direction": lambda: protocol("title2: abc\u202edef"),
    "escaped direction": lambda: protocol('x: "\\u202e"'),
    "next line": lambda: protocol("x: a\u0085b"),
    "surrogate": lambda: protocol('x: "\\ud800"'),
    "not UTF-8": lambda: protocol(b"x: \xe9"),
    "UTF-16": lambda: HEAD.decode().encode("utf-16"),
    "two documents": lambda: protocol("---\nseed: 1"),
    "many documents": lambda: b"--- a\n" * 160_000,
    "empty": lambda: b"",
    "comment": lambda: b"# nothing\n",
    "a list": lambda: b"[1, 2]\n",
    "a text": lambda: b"abc",
    "too long": lambda: b"#" * 1_000_001,
    "flat": lambda: protocol("".join(f"key{n}: 1\n" for n in range(75_000))),
    "many keys": lambda: protocol("".join(f"key{n}: 1\n" for n in range(9_600))),
    "many wrong values": lambda: protocol(f"model: {{arguments: {{a: [{_many('null', 19_600)}]}}}}"),
    "many wrong attacks": lambda: protocol(f"suite: {{attacks: [{_many('{{}}', 16_000)}]}}"),
    "many findings": lambda: protocol(
        f"task: {{kind: multilabel, classes: [{_many('f{}', 8_000)}], threshold: {{{_many('g{}: 0.5', 4_800)}}}}}"
    ),
    "long key": lambda: protocol("? " + "x" * 900_000 + "\n: 1"),
    "long value": lambda: protocol("seed: " + "x" * 900_000),
    "unclosed": lambda: protocol('x: "abc'),
    "tab": lambda: protocol("\tx: 1"),
}


# --- checkpoints -------------------------------------------------------------------------------------------------


def opcodes(*parts: Any) -> bytes:
    """A pickle of protocol 2, instruction by instruction.

    Args:
        parts: bytes are taken as they are; a text, a whole number, a boolean or null is pushed; a tuple or list of
            parts becomes a tuple; a dict of parts becomes a dict.
    """
    return b"\x80\x02" + b"".join(map(_pushed, parts)) + b"."


def _pushed(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, dict):
        return b"}(" + b"".join(_pushed(k) + _pushed(v) for k, v in part.items()) + b"u"
    if isinstance(part, (tuple, list)):
        return b"(" + b"".join(map(_pushed, part)) + b"t"
    return pickle.dumps(part, 2)[2:-1]


def name(module: str, qualified: str) -> bytes:
    """The instruction that pushes what a module calls so."""
    return f"c{module}\n{qualified}\n".encode()


def call(function: bytes, *arguments: Any) -> bytes:
    """The instructions that call a name with arguments."""
    return function + _pushed(arguments) + b"R"


def storage(key: str = "0", count: int = 4, kind: str = "Float", *more: Any) -> bytes:
    """A reference to values that lie elsewhere in the file."""
    return _pushed(("storage", name("torch", f"{kind}Storage"), key, "cpu", count, *more)) + b"Q"


def tensor(size: Iterable[Any], stride: Iterable[Any], offset: Any = 0, values: bytes | None = None) -> bytes:
    """A tensor over a storage of four float32 values, unless told otherwise."""
    held = storage() if values is None else values
    return call(name("torch._utils", "_rebuild_tensor_v2"), held, offset, tuple(size), tuple(stride), False, None)


def archive(content: Any, records: dict[str, bytes] | None = None, *, files: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A torch file of the new form, with values by key: sixteen null bytes under 0 unless told otherwise."""
    records = {"0": bytes(16)} if records is None else records
    members = [("m/data.pkl", opcodes(content)), ("m/version", b"3\n"), ("m/byteorder", b"little")]
    return stored([*members, *((f"m/data/{key}", data) for key, data in records.items()), *files])


def stored(members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of members, with one date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for path, data in members:
            info = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            file.writestr(info, data)
    return buffer.getvalue()


def row(content: Any, keys: Any, *values: tuple[int, bytes]) -> bytes:
    """A torch file of the old form: pickles in a row, then each storage behind its length."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    behind = b"".join(struct.pack("<Q", count) + data for count, data in values)
    return b"".join([*heads, opcodes(content), pickle.dumps(keys, 2), behind])


def _edited(data: bytes, at: bytes, offset: int, value: bytes) -> bytes:
    """Bytes changed at a place in every record that begins with a signature."""
    changed, place = bytearray(data), data.find(at)
    while place >= 0:
        changed[place + offset : place + offset + len(value)] = value
        place = data.find(at, place + 4)
    return bytes(changed)


def _plain() -> bytes:
    return archive({"w": tensor([4], [1])})


def _reduced(how: str, *arguments: Any) -> bytes:
    return archive({"w": call(name("torch._utils", f"_rebuild_{how}"), *arguments)})


def _nested(levels: int) -> bytes:
    """Instructions for a tuple that holds one before it twice, so that to hash or show it takes 2 ** levels steps."""
    return _pushed(("x",)) + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(levels))


def _colliding(count: int) -> bytes:
    """A dict of whole numbers that share one hash."""
    return b"}(" + b"".join(_pushed(n * (2**61 - 1)) + b"K\x00" for n in range(1, count)) + b"u"


def _shared(count: int) -> bytes:
    """One storage of 64 KiB that many names show."""
    values = storage(count=16_384)
    return archive({f"w{n}": tensor([16_384], [1], 0, values) for n in range(count)}, {"0": bytes(65_536)})


def _one_place(count: int) -> bytes:
    """Many members of an archive that all lie in one place."""
    content = {f"w{n}": tensor([16_384], [1], 0, storage(str(n), 16_384)) for n in range(count)}
    data = archive(content, {"0": bytes(65_536)} | {str(n): b"" for n in range(1, count)})
    central = data.index(b"PK\x01\x02")
    first = data.index(b"m/data/0", central) - 46
    sizes, where = data[first + 16 : first + 28], data[first + 42 : first + 46]
    changed, place = bytearray(data), data.find(b"m/data/", central)
    while place >= 0:
        changed[place - 46 + 16 : place - 46 + 28], changed[place - 46 + 42 : place - 46 + 46] = sizes, where
        place = data.find(b"m/data/", place + 1)
    return bytes(changed)


def _named(arch: str, state: dict[Any, Any], records: dict[str, bytes] | None = None) -> bytes:
    """A checkpoint that names its architecture."""
    return archive({"state_dict": state, "arch": arch}, records)


CHECKPOINTS: dict[str, Maker] = {
    "expanded": lambda: archive({"w": tensor([50_000, 50_000], [0, 0])}),
    "expanded in one direction": lambda: archive({"w": tensor([4, 10**9], [1, 0])}),
    "overlapping": lambda: archive({"w": tensor([2, 2], [1, 1])}),
    "overlapping by halves": lambda: archive({"w": tensor([2, 3], [1, 1])}),
    "beyond its values": lambda: archive({"w": tensor([100], [1])}),
    "beyond by offset": lambda: archive({"w": tensor([4], [1], 1)}),
    "beyond by stride": lambda: archive({"w": tensor([2], [10**9])}),
    "huge storage": lambda: archive({"w": tensor([10**9], [1], 0, storage(count=10**9))}),
    "huge storage, small tensor": lambda: archive({"w": tensor([4], [1], 0, storage(count=10**9))}),
    "small storage": lambda: archive({"w": tensor([2], [1], 0, storage(count=2))}),
    "no such values": lambda: archive({"w": tensor([4], [1], 0, storage("7"))}),
    "values in two ways": lambda: archive({"w": tensor([4], [1]), "v": tensor([2], [1], 0, storage(kind="Double"))}),
    "one storage, many names": lambda: _shared(400),
    "one place, many members": lambda: _one_place(200),
    "deflated": lambda: stored([("m/data.pkl", opcodes({"w": tensor([4], [1])})), ("m/data/0", bytes(2**24))], 8),
    "bzip2": lambda: stored([("m/data.pkl", opcodes({"w": tensor([4], [1])})), ("m/data/0", bytes(2**24))], 12),
    "lzma": lambda: stored([("m/data.pkl", opcodes({"w": tensor([4], [1])})), ("m/data/0", bytes(2**20))], 14),
    "says it is larger": lambda: _edited(_plain(), b"PK\x01\x02", 24, struct.pack("<I", 10**9)),
    "says both are larger": lambda: _edited(_plain(), b"PK\x01\x02", 20, struct.pack("<II", 10**9, 10**9)),
    "says it lies elsewhere": lambda: _edited(_plain(), b"PK\x01\x02", 42, struct.pack("<I", 10**9)),
    "encrypted": lambda: _edited(_plain(), b"PK\x01\x02", 8, b"\x01\x00"),
    "member twice": lambda: archive({"w": tensor([4], [1])}, files=[("m/data/1", b"")]).replace(b"data/1", b"data/0"),
    "two pickles": lambda: archive({"w": tensor([4], [1])}, files=[("n/data.pkl", opcodes({}))]),
    "no pickle": lambda: stored([("m/data/0", bytes(16))]),
    "empty archive": lambda: stored([]),
    "a flipped bit": lambda: archive({"w": tensor([4], [1])}, {"0": b"weights of model"}).replace(b"hts of", b"hts_of"),
    "cut": lambda: _plain()[:-60],
    "only a beginning": lambda: _plain()[:40],
    "big-endian": lambda: stored(
        [("m/data.pkl", opcodes({"w": tensor([4], [1])})), ("m/byteorder", b"big"), ("m/data/0", bytes(16))]
    ),
    "TorchScript": lambda: archive({"w": tensor([4], [1])}, files=[("m/constants.pkl", opcodes(()))]),
    "large pickle": lambda: stored([("m/data.pkl", opcodes({"w": tensor([4], [1])}) + bytes(2**24))]),
    "sparse": lambda: _reduced("sparse_tensor", "layout", (tensor([1], [1]), tensor([4], [1]), (10**9,))),
    "quantised": lambda: _reduced("qtensor", storage(kind="QInt8"), 0, (4,), (1,), (), False, None),
    "meta": lambda: _reduced("meta_tensor_no_storage", name("torch", "float32"), (10**6, 10**6), (1, 1), False),
    "nested": lambda: _reduced("nested_tensor", tensor([4], [1]), tensor([1], [1]), tensor([1], [1])),
    "wrapped": lambda: _reduced("wrapper_subclass", name("torch", "Tensor"), name("torch", "float32"), (10**9,)),
    "third form": lambda: _reduced("tensor_v3", storage(), 0, (4,), (1,), False, None, name("torch", "float8_e5m2")),
    "complex": lambda: archive({"w": tensor([2], [1], 0, storage(count=2, kind="ComplexFloat"))}),
    "objects": lambda: archive({"w": call(name("numpy", "ndarray"), (4,))}),
    "untyped": lambda: archive(
        {"w": tensor([4], [1], 0, _pushed(("storage", name("torch.storage", "UntypedStorage"), "0", "cpu", 16)) + b"Q")}
    ),
    "view of a view": lambda: row({"w": tensor([4], [1], 0, storage("0", 4, "Float", ("1", 0, 4)))}, ["0"]),
    "negative size": lambda: archive({"w": tensor([-1], [1])}),
    "negative stride": lambda: archive({"w": tensor([4], [-1], 3)}),
    "negative offset": lambda: archive({"w": tensor([2], [1], -1)}),
    "size of text": lambda: archive({"w": tensor(["4"], [1])}),
    "size of truth": lambda: archive({"w": tensor([True], [1])}),
    "more sizes than strides": lambda: archive({"w": tensor([2, 2], [1])}),
    "a thousand dimensions": lambda: archive({"w": tensor([1] * 1000, [1] * 1000)}),
    "product overflows": lambda: archive({"w": tensor([2**40] * 8, [1] * 8)}),
    "tensor of a text": lambda: archive({"w": tensor([4], [1], 0, _pushed("storage"))}),
    "code": lambda: archive({"w": call(name("os", "mkdir"), "ran")}),
    "code, old form": lambda: row({"w": call(name("os", "mkdir"), "ran")}, []),
    "code, plain pickle": lambda: opcodes(call(name("posix", "mkdir"), "ran")),
    "code by build": lambda: archive({"w": name("torch", "Tensor") + _pushed({"__setstate__": "x"}) + b"b"}),
    "code by torch": lambda: archive({"w": call(name("torch", "load"), "x")}),
    "code by instance": lambda: archive({"w": b"(X\x03\x00\x00\x00ranios\nmkdir\n"}),
    "code by extension": lambda: archive({"w": b"\x82\x01"}),
    "a module": lambda: archive({"w": name("torch.nn.modules.linear", "Linear") + b")\x81"}),
    "memo far away": lambda: archive({"w": tensor([4], [1]), "x": b"Nr\xff\xff\xff\x7f"}),
    "names nothing": lambda: archive({"w": b"h\x63"}),
    "pops too much": lambda: archive(b"\x87\x87\x87"),
    "no mark": lambda: archive(b"NNNt"),
    "a mark kept": lambda: archive(b"(q\x00h\x00h\x00tt"),
    "unending": lambda: stored([("m/data.pkl", b"\x80\x02" + b"}" * 10**6)]),
    "costly key": lambda: archive(b"}" + _nested(60) + b"K\x00s"),
    "costly name": lambda: archive(_nested(60) + _nested(60) + b"\x93"),
    "costly kind": lambda: archive(_pushed(("storage",)) + _nested(60) + b"\x86Q"),
    "deep key": lambda: archive(b"}" + b"N" + b"\x85" * 500_000 + b"K\x00s"),
    "colliding keys": lambda: archive(_colliding(60_000)),
    "deep rebuilding": lambda: archive({"w": name("torch._tensor", "_rebuild_from_type_v2") * 5000 + b")R"}),
    "huge number": lambda: archive({"w": tensor([4], [1]), "x": b"\x8b" + struct.pack("<i", 2**19) + b"\x7f" * 2**19}),
    "text with a lying length": lambda: archive({"w": b"X\xff\xff\xff\xff"}),
    "holds itself": lambda: archive(b"}q\x00X\x01\x00\x00\x00wh\x00s"),
    "a list": lambda: archive(b"]"),
    "a tensor": lambda: archive(tensor([4], [1])),
    "nothing in it": lambda: archive({}),
    "texts": lambda: archive({"epoch": "three"}),
    "controls in its keys": lambda: archive({"\x1b[31m\u202e": "three", "x" * 10**5: 1}),
    "old form, lying length": lambda: row({"w": tensor([4], [1])}, ["0"], (10**12, bytes(16))),
    "old form, lying count": lambda: row({"w": tensor([4], [1], 0, storage(count=10**12))}, ["0"], (10**12, bytes(16))),
    "old form, expanded": lambda: row({"w": tensor([10**9], [0])}, ["0"], (4, bytes(16))),
    "old form, cut": lambda: row({"w": tensor([4], [1])}, ["0"], (4, bytes(15))),
    "old form, no keys": lambda: row({"w": tensor([4], [1])}, [], (4, bytes(16))),
    "old form, other keys": lambda: row({"w": tensor([4], [1])}, [["0"]], (4, bytes(16))),
    "old form, one key twice": lambda: row({"w": tensor([4], [1])}, ["0", "0"], (4, bytes(16)), (4, bytes(16))),
    "mean not a number": lambda: archive({"state_dict": {"w": tensor([4], [1])}, "mean": (float("nan"),)}),
    "mean of 400 digits": lambda: archive({"state_dict": {"w": tensor([4], [1])}, "mean": (10**400,)}),
    "std of nothing": lambda: archive({"state_dict": {"w": tensor([4], [1])}, "std": (0.0,)}),
    "a million means": lambda: archive({"state_dict": {"w": tensor([4], [1])}, "mean": (0.5,) * 10**5}),
    "names python code": lambda: _named("python:os:getcwd", {"w": tensor([4], [1])}),
    "long architecture": lambda: _named("resnet" * 10**5, {"w": tensor([4], [1])}),
    "steering architecture": lambda: _named("\x1b[31m\u202e", {"w": tensor([4], [1])}),
    "huge architecture": lambda: _named("vit_gigantic_patch14_clip_224", {"w": tensor([4], [1])}),
    "huge network": lambda: _named("resnetv2_152x4_bit", {"fc.weight": tensor([2, 2], [2, 1])}),
    "many classes": lambda: _named(
        "resnet18",
        {"fc.weight": tensor([10**6, 1], [1, 1], 0, storage(count=10**6, kind="Byte"))},
        {"0": bytes(10**6)},
    ),
    "no classes": lambda: _named("test_resnet", {"fc.weight": tensor([0, 64], [64, 1]), "b": tensor([4], [1])}),
    "a number for a layer": lambda: _named("test_resnet", {"fc.weight": tensor([], [])}),
    "wrapped many times": lambda: _named("test_resnet", {"module." * 50_000 + "w": tensor([4], [1])}),
    "wrapper alone": lambda: _named("test_resnet", {"module": tensor([4], [1])}),
    "steering names": lambda: _named("test_resnet", {"\x1b[31m\u202e" + "x" * 10**5: tensor([4], [1])}),
    "surrogate names": lambda: _named("test_resnet", {b"X\x03\x00\x00\x00\xed\xa0\x80": tensor([4], [1])}),
    "no torch file": lambda: b"not a model at all",
    "no file at all": lambda: b"",
    "a pickle's first byte": lambda: b"\x80",
    "an archive's first bytes": lambda: b"PK\x03\x04",
}


# --- safetensors -------------------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """A file of this form: eight bytes of length, the header (JSON, or bytes as they are), the values."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(shape: Any, begin: int = 0, end: int = 16, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SAFETENSORS: dict[str, Maker] = {
    "header beyond the file": lambda: safetensors({"w": _entry([4])}, length=2**60),
    "header of 100 MB": lambda: safetensors({"w": _entry([4])}, length=100_000_000),
    "header of 17 MB": lambda: safetensors(b'{"w":' + b" " * 17_000_000 + b"{}}", b""),
    "header of nothing": lambda: safetensors(b""),
    "deep header": lambda: safetensors(b'{"w":' + b"[" * 200_000),
    "name twice": lambda: safetensors(b'{"w":%s,"w":%s}' % ((json.dumps(_entry([2], 0, 8)).encode(),) * 2), bytes(16)),
    "larger than its values": lambda: safetensors({"w": _entry([10**9])}),
    "beyond the file": lambda: safetensors({"w": _entry([10**9], 0, 4 * 10**9)}),
    "overlapping": lambda: safetensors({"w": _entry([4]), "v": _entry([4])}),
    "overlapping by halves": lambda: safetensors({"w": _entry([3], 0, 12), "v": _entry([3], 4, 16)}),
    "a gap": lambda: safetensors({"w": _entry([2], 0, 8), "v": _entry([1], 12, 16)}),
    "values left": lambda: safetensors({"w": _entry([2], 0, 8)}),
    "begins behind its end": lambda: safetensors({"w": _entry([4], 16, 0)}),
    "product overflows": lambda: safetensors({"w": _entry([2**62, 4])}),
    "product overflows to right": lambda: safetensors({"w": _entry([2**62 + 1, 4])}),
    "negative shape": lambda: safetensors({"w": _entry([-4])}),
    "shape of text": lambda: safetensors({"w": _entry("4")}),
    "a million dimensions": lambda: safetensors({"w": _entry([1] * 10**6, 0, 4)}, bytes(4)),
    "unknown type": lambda: safetensors({"w": _entry([4], dtype="F33")}),
    "eight-bit floats": lambda: safetensors({"w": _entry([16], dtype="F8_E4M3")}),
    "complex": lambda: safetensors({"w": _entry([2], dtype="C64")}),
    "no tensors": lambda: safetensors({}, b""),
    "metadata of numbers": lambda: safetensors({"__metadata__": {"a": 1}, "w": _entry([4])}),
    "not UTF-8": lambda: safetensors(b'{"\xff": {}}'),
    "a list": lambda: safetensors([1, 2]),
    "cut": lambda: safetensors({"w": _entry([4])})[:-1],
    "empty": lambda: b"",
    "a torch file": lambda: _plain(),
}


# --- bundles -----------------------------------------------------------------------------------------------------


def bundle(**arguments: Any) -> bytes:
    """The JSON of a bundle whose network is a small DenseNet, with other arguments."""
    definition = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    return json.dumps({"network_def": definition | arguments}).encode()


def _network(target: str, **arguments: Any) -> bytes:
    return json.dumps({"network_def": {"_target_": target, **arguments}}).encode()


BUNDLES: dict[str, Maker] = {
    "dimensions of text": lambda: bundle(spatial_dims="abc"),
    "a billion dimensions": lambda: bundle(spatial_dims=10**9),
    "dimensions of nothing": lambda: bundle(spatial_dims=None),
    "dimensions of a list": lambda: bundle(spatial_dims=[2]),
    "dimensions of truth": lambda: bundle(spatial_dims=True),
    "two and a half dimensions": lambda: bundle(spatial_dims=2.5),
    "dimensions of 400 digits": lambda: bundle(spatial_dims=10**400),
    "no dimensions": lambda: bundle(spatial_dims=0),
    "wide": lambda: bundle(init_features=200_000),
    "wide within bounds": lambda: bundle(init_features=32_768),
    "growing": lambda: bundle(growth_rate=32_768),
    "negative growth": lambda: bundle(growth_rate=-3),
    "growth of text": lambda: bundle(growth_rate="many"),
    "growth of nothing": lambda: bundle(growth_rate=0),
    "deep": lambda: bundle(block_config=[10**9]),
    "deep within bounds": lambda: bundle(block_config=[32_768]),
    "deep in sum": lambda: bundle(block_config=[30_000, 30_000, 30_000]),
    "many blocks": lambda: bundle(block_config=[1] * 100_000),
    "many blocks within bounds": lambda: bundle(block_config=[1] * 128),
    "deeply nested": lambda: bundle(block_config=json.loads("[" * 100 + "6" + "]" * 100)),
    "a thousand arguments": lambda: bundle(**{f"a{n}": n for n in range(2000)}),
    "unknown argument": lambda: bundle(surprise=1),
    "argument that steers": lambda: bundle(**{"\x1b[31m\u202e": 1}),
    "text that steers": lambda: bundle(norm="\x1b[31m\u202e"),
    "surrogate": lambda: bundle(norm="\ud800"),
    "long text": lambda: bundle(norm="x" * 100_000),
    "long key": lambda: bundle(norm={"x" * 100_000: {str(n): 1 for n in range(100)}}),
    "infinite": lambda: bundle(dropout_prob=float("inf")),
    "1e999": lambda: bundle(dropout_prob=0.125).replace(b"0.125", b"1e999"),
    "classes of truth": lambda: bundle(out_channels=True),
    "negative classes": lambda: bundle(out_channels=-5),
    "key twice": lambda: bundle().replace(b'"spatial_dims": 2', b'"spatial_dims": 2, "spatial_dims": 3'),
    "deep JSON": lambda: b'{"network_def": ' + b"[" * 200_000,
    "too long": lambda: b" " * 1_000_001,
    "no network": lambda: b"{}",
    "a list": lambda: b"[]",
    "network of text": lambda: b'{"network_def": "DenseNet121"}',
    "target of a list": lambda: _network(["DenseNet121"]),  # type: ignore[arg-type]
    "target of code": lambda: _network("os.mkdir", path="ran"),
    "target that steers": lambda: _network("\x1b[31m.\u202e"),
    "timm, wide": lambda: _network("timm.create_model", model_name="resnet18", base_width=30_000),
    "timm, deep": lambda: _network("timm.create_model", model_name="resnet18", layers=[16_000] * 4),
    "timm, deep transformer": lambda: _network("timm.create_model", model_name="vit_tiny_patch16_224", depth=32_768),
    "timm, large image": lambda: _network(
        "timm.create_model", model_name="vit_tiny_patch16_224", img_size=[32_000, 32_000], patch_size=1
    ),
    "timm, large windows": lambda: _network(
        "timm.create_model", model_name="swin_tiny_patch4_window7_224", img_size=32_000, window_size=4_000
    ),
    "timm, no name": lambda: _network("timm.create_model"),
    "timm, long name": lambda: _network("timm.create_model", model_name="resnet" * 30),
    "transformer, deep": lambda: _network(
        "ViT", in_channels=1, img_size=[16, 16], patch_size=[8, 8], classification=True, num_layers=32_000
    ),
    "transformer, large image": lambda: _network(
        "ViT", in_channels=1, img_size=[30_000, 30_000], patch_size=[1, 1], classification=True
    ),
    "encoder of huge images": lambda: _network(
        "VarAutoEncoder", spatial_dims=3, in_shape=[1, 20_000, 20_000, 20_000], out_channels=1, latent_size=30_000,
        channels=[8, 16], strides=[1, 1],
    ),
    "wide layers": lambda: _network("FullyConnectedNet", in_channels=1, out_channels=2, hidden_channels=[500] * 128),
    "residual, deep": lambda: _network(
        "ResNet", block="basic", layers=[16_000] * 4, block_inplanes=[1, 1, 1, 1], spatial_dims=2
    ),
}  # fmt: skip

YAML_BUNDLES: dict[str, Maker] = {
    "alias bomb": lambda: _aliases() + b"network_def: {_target_: DenseNet121}\n",
    "self-reference": lambda: b"network_def: &a {_target_: DenseNet121, x: *a}\n",
    "merge": lambda: b"network_def: {<<: {_target_: DenseNet121}}\n",
    "python": lambda: b"network_def: !!python/object/apply:os.mkdir [ran]\n",
    "deep": lambda: b"network_def: " + b"[" * 200_000,
    "date": lambda: b"network_def: {_target_: DenseNet121, x: 2020-13-45}\n",
    "dimensions of text": lambda: b"network_def: {_target_: DenseNet121, spatial_dims: abc}\n",
}
