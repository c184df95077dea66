"""Finding, reading and checking protocol files; an error names the key and the nearest known one."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rfc8785
from pydantic import BaseModel, ValidationError

from medharden.errors import ProtocolError
from medharden.plain_yaml import LARGEST_YAML, lines_of, parse_yaml, yaml_text
from medharden.protocol.schema import Protocol
from medharden.text import neutral

__all__ = [
    "DEFAULT_PROTOCOL",
    "content_digest",
    "load_protocol",
    "parse_content",
    "parse_protocol",
    "protocol_yaml",
    "read_content",
    "shipped_protocols",
]

DEFAULT_PROTOCOL = "default"
_MOST_SHOWN = 20
_LONGEST_SHOWN = 300


def shipped_protocols() -> dict[str, Path]:
    """The protocols that come with medharden: name to file."""
    package = Path(__file__).resolve().parent.parent
    folder = package / "protocols"
    if not folder.is_dir():  # a source checkout: the wheel carries the files inside the package
        folder = package.parent / "protocols"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Reads a shipped protocol by name, or a protocol file by path.

    Raises:
        ProtocolError: no such protocol, unreadable YAML, or a field that the schema refuses.
    """
    shipped = shipped_protocols()
    path = shipped.get(str(name_or_path), Path(name_or_path))
    if not _is_file(path):
        near = _nearest(str(name_or_path), shipped)
        raise ProtocolError(
            f"there is no protocol {_short(str(name_or_path))}{near}; expected a path to a YAML file or one of: "
            + ", ".join(shipped)
        )
    data = _data(path)
    return _checked(parse_content(data, path.name), path.name, data)


def read_content(path: Path) -> dict[str, Any]:
    """A protocol file's own fields, whatever this version's schema says of them.

    Raises:
        ProtocolError: too large, or no plain YAML with keys and values.
    """
    return parse_content(_data(path), path.name)


def _data(path: Path) -> bytes:
    if not _is_file(path):
        raise ProtocolError(f"{neutral(path.name)[:_LONGEST_SHOWN]} is no file that can be read; expected a protocol")
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST_YAML + 1)
    except OSError as error:
        raise ProtocolError(f"{neutral(path.name)} can't be read: {type(error).__name__}") from error


def parse_content(text: str | bytes, source: str) -> dict[str, Any]:
    """A protocol's own fields from YAML, as `read_content`; `source` names it in errors.

    Raises:
        ProtocolError: too large, or no plain YAML with keys and values.
    """
    shown = neutral(source)[:_LONGEST_SHOWN]
    try:
        raw = parse_yaml(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
    except ValueError as error:
        raise ProtocolError(f"{shown} is not readable as YAML: {error}") from None
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else type(raw).__name__
        raise ProtocolError(f"{shown}: expected keys and values, found {found}")
    return raw


def content_digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over the RFC 8785 form of a protocol file's own fields.

    Of a file that holds every field, as that in a run directory does, it equals `Protocol.digest` in the version that
    wrote it, also where later versions know other fields.

    Raises:
        ProtocolError: a value that JSON can't hold.
    """
    try:
        return hashlib.sha256(rfc8785.dumps(content)).hexdigest()
    except (rfc8785.CanonicalizationError, TypeError) as error:
        raise ProtocolError(f"the protocol holds a value that JSON can't hold ({type(error).__name__})") from error


def parse_protocol(text: str | bytes, source: str) -> Protocol:
    """Reads a protocol from YAML text; `source` names it in errors.

    Raises:
        ProtocolError: not YAML, or a field that the schema refuses.
    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return _checked(parse_content(data, source), source, data)


def protocol_yaml(protocol: Protocol, *, width: int = 80) -> str:
    """Every field as YAML that `parse_protocol` reads back; long texts are folded after `width` characters."""
    return yaml_text(protocol.model_dump(mode="json"), width=width)


def _checked(raw: dict[str, Any], source: str, data: bytes) -> Protocol:
    try:
        return Protocol.model_validate(_lists_to_tuples(raw), strict=True)
    except ValidationError as error:
        lines = [f"  {neutral(line)}" for line in _explain(error, lines_of(data))]
        more = [f"  and {error.error_count() - _MOST_SHOWN} more"] if error.error_count() > _MOST_SHOWN else []
        raise ProtocolError(f"{neutral(source)} is not a valid protocol:\n" + "\n".join([*lines, *more])) from None


def _lists_to_tuples(value: Any, key: str = "") -> Any:
    """YAML has lists alone and a frozen schema has tuples; constructor arguments stay lists."""
    if isinstance(value, dict):
        return {k: v if k == "arguments" else _lists_to_tuples(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_lists_to_tuples(v) for v in value)
    return value


def _explain(error: ValidationError, lines: Mapping[tuple[str | int, ...], int]) -> Iterator[str]:
    """What is wrong, with the line: key, what was expected, what was found."""
    for item in error.errors(include_url=False, include_context=False)[:_MOST_SHOWN]:
        location = item["loc"]
        where = _cut(".".join(_cut(str(part), 60) or "''" for part in location) or "protocol")
        line = next((f"line {lines[p]}: " for n in range(len(location), 0, -1) if (p := location[:n]) in lines), "")
        if item["type"] == "extra_forbidden":
            known = _fields_at(location[:-1])
            yield f"{line}{where}: unknown key{_nearest(str(location[-1]), known)}"
        elif item["type"] == "missing":
            yield f"{line}{where}: missing"
        else:
            shown = "" if isinstance(item["input"], dict) else f", found {_short(item['input'])}"
            said = _cut(_expected(item["type"], item["msg"], item["input"]))
            # a rule over several keys names its own
            yield f"{line}{said}{shown}" if said.startswith(f"{where}.") else f"{line}{where}: {said}{shown}"


def _expected(kind: str, message: str, value: Any) -> str:
    """What a value must be, in words of the file rather than of the library that checks it."""
    said = message.removeprefix("Value error, ")
    if kind == "tuple_type":
        return f"expected a list such as [{_plainly(value)}, {_plainly(value)}]"
    if kind in ("float_type", "int_type", "int_from_float"):
        whole = "a whole number" if kind != "float_type" else "a number"
        if isinstance(value, str) and (percent := _percent(value)) is not None:
            return f"expected {whole} without a sign, a share as {percent:g}"
        return f"expected {whole}, without quotes"
    if kind in ("less_than", "less_than_equal") and isinstance(value, (int, float)) and 1 < value <= 100:
        below = said.replace("Input should be", "expected")
        return f"{below}; shares are proportions, so {value:g} % is {value / 100:g}"
    if kind == "bool_type":
        return "expected true or false"
    if kind == "string_type":
        return "expected a text; put it in quotes where it reads as a number"
    return said.replace("Input should be a valid", "expected a").replace("Input should be", "expected")


def _plainly(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else "64"


def _percent(text: str) -> float | None:
    """The share that `10%` means; null where it is no such text."""
    number = text.strip().removesuffix("%")
    if number == text.strip():
        return None
    try:
        return float(number) / 100
    except ValueError:
        return None


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that the schema knows at a place in the file."""
    model: Any = Protocol
    for part in location:
        if isinstance(part, int):
            continue
        model = model.model_fields[part].annotation
        model = next((a for a in _unwrap(model) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _unwrap(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _unwrap(inner)


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5) if len(name) <= 60 else []
    return f" (did you mean {near[0]!r}?)" if near else ""


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        value = value[:20]
    return _cut(repr(value[:80] if isinstance(value, str) else value), 80)


def _cut(text: str, length: int = _LONGEST_SHOWN) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long for any file
        return False
