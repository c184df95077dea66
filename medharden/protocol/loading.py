"""Finding, reading and checking protocol files; an error names the key and the nearest known one."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rfc8785
import yaml
from pydantic import BaseModel, ValidationError

from medharden.errors import ProtocolError
from medharden.protocol.schema import Protocol

__all__ = [
    "DEFAULT_PROTOCOL",
    "content_digest",
    "load_protocol",
    "parse_content",
    "parse_protocol",
    "read_content",
    "shipped_protocols",
]

DEFAULT_PROTOCOL = "default"
_LARGEST_BYTES = 1_000_000


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
    if str(name_or_path) in shipped:
        path = shipped[str(name_or_path)]
    else:
        path = Path(name_or_path)
        if not path.is_file():
            near = _nearest(str(name_or_path), shipped)
            raise ProtocolError(
                f"there is no protocol {str(name_or_path)!r}{near}; expected a path to a YAML file or one of: "
                + ", ".join(shipped)
            )
    return _checked(read_content(path), path.name)


def read_content(path: Path) -> dict[str, Any]:
    """A protocol file's own fields, whatever this version's schema says of them.

    Raises:
        ProtocolError: too large, or no readable YAML with keys and values.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ProtocolError(f"{path.name} is larger than {_LARGEST_BYTES} bytes; is it a protocol?")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{path.name} can't be read as text: {type(error).__name__}") from error
    return parse_content(text, path.name)


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


def parse_protocol(text: str, source: str) -> Protocol:
    """Reads a protocol from YAML text; `source` names it in errors.

    Raises:
        ProtocolError: not YAML, or a field that the schema refuses.
    """
    return _checked(parse_content(text, source), source)


def parse_content(text: str, source: str) -> dict[str, Any]:
    """A protocol's own fields from YAML text, whatever this version's schema says of them; as `read_content`."""
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "malformed"
        raise ProtocolError(f"{source} is not readable as YAML{where}: {reason}") from error
    if not isinstance(raw, dict):
        raise ProtocolError(f"{source}: expected keys and values, found {type(raw).__name__}")
    return raw


def _checked(raw: dict[str, Any], source: str) -> Protocol:
    try:
        return Protocol.model_validate(_lists_to_tuples(raw), strict=True)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in _explain(error))
        raise ProtocolError(f"{source} is not a valid protocol:\n{lines}") from error


def _lists_to_tuples(value: Any, key: str = "") -> Any:
    """YAML has lists alone and a frozen schema has tuples; constructor arguments stay lists."""
    if isinstance(value, dict):
        return {k: v if k == "arguments" else _lists_to_tuples(v, str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_lists_to_tuples(v) for v in value)
    return value


def _explain(error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False, include_context=False):
        location = item["loc"]
        where = ".".join(str(part) for part in location) or "protocol"
        if item["type"] == "extra_forbidden":
            known = _fields_at(location[:-1])
            yield f"{where}: unknown key{_nearest(str(location[-1]), known)}"
        elif item["type"] == "missing":
            yield f"{where}: missing"
        else:
            shown = "" if isinstance(item["input"], dict) else f", found {_short(item['input'])}"
            yield f"{where}: {item['msg'].removeprefix('Value error, ')}{shown}"


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
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error: plain YAML keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)
