"""YAML as plain data, out and in: texts, numbers, booleans and nulls in lists and keyed values, each written out once.

A file is refused before anything is made of it that is larger than itself: aliases and merge keys, deep nesting, and
numbers or dates that read otherwise than they look. So no file costs more than its length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from medharden.canonical import DEEPEST
from medharden.text import neutral

__all__ = ["LARGEST_YAML", "lines_of", "parse_yaml", "yaml_text"]

LARGEST_YAML = 1_000_000
"""Bytes of the largest file."""

_MOST_VALUES = 20_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where PyYAML came with it; ten times faster
_RESOLVER = yaml.resolver.Resolver()
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_LARGEST_WHOLE = 2**53 - 1  # what JSON holds exactly, and so a record
_LONGEST_NUMBER = 64
# controls but tab and line ends, surrogates, non-characters; embeddings, overrides and isolates of direction
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def parse_yaml(data: bytes) -> Any:
    """The value of one YAML document in UTF-8; null of an empty one.

    Keys are the text that is written, so `1` and `yes` are texts there.

    Raises:
        ValueError: no YAML, or more than plain data; the text begins with the line where there is one.
    """
    if len(data) > LARGEST_YAML:
        raise ValueError(f"it is larger than {LARGEST_YAML} bytes")
    return _Building().value_of(_events(_decoded(data)))


def lines_of(data: bytes) -> dict[tuple[str | int, ...], int]:
    """The line, from 1 up, at which each key and each entry of a list begins, by its place.

    Args:
        data: what `parse_yaml` took, which bounds its size and depth.
    """
    found: dict[tuple[str | int, ...], int] = {}
    root = yaml.compose(data.decode("utf-8-sig"), Loader=_LOADER)
    left: list[tuple[tuple[str | int, ...], Any]] = [((), root)]
    while left:
        place, node = left.pop()
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                found[(*place, key.value)] = key.start_mark.line + 1
                left.append(((*place, key.value), value))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                found[(*place, number)] = value.start_mark.line + 1
                left.append(((*place, number), value))
    return found


def yaml_text(value: Any, *, width: int = 80) -> str:
    """Plain data as YAML that `parse_yaml` reads back: what two places share is written out in both.

    Args:
        value: dicts, lists, texts, numbers, booleans and nulls.
        width: characters after which long texts are folded.
    """
    text: str = yaml.dump(value, Dumper=_WrittenOut, sort_keys=False, allow_unicode=True, width=width)
    return text


class _WrittenOut(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _decoded(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _at(data.count(b"\n", 0, error.start) + 1, "no UTF-8 text") from None
    unfit = _UNFIT.search(text)
    if unfit is not None:
        raise _at(text.count("\n", 0, unfit.start()) + 1, _unfit(unfit[0]))
    return text


def _events(text: str) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        last = text.count("\n") + 1  # libyaml counts one more at the end
        line = last if mark is None else min(mark.line + 1, last)
        raise _at(line, neutral((error.problem or "malformed")[:200])) from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is malformed ({type(error).__name__})") from None


@dataclass
class _Open:
    """A list or a mapping that has begun; of a mapping, `key` is the key whose value comes next."""

    holder: list[Any] | dict[str, Any]
    key: str | None = None

    @property
    def wants_key(self) -> bool:
        return isinstance(self.holder, dict) and self.key is None

    def put(self, value: Any) -> None:
        if isinstance(self.holder, list):
            self.holder.append(value)
        elif self.key is not None:
            self.holder[self.key], self.key = value, None


class _Building:
    """Builds the value from the parser's events, with a stack of its own: nesting costs no recursion."""

    def __init__(self) -> None:
        self.document: list[Any] = []
        self.open = [_Open(self.document)]
        self.values = self.documents = 0

    def value_of(self, events: Iterator[yaml.Event]) -> Any:
        for event in events:
            line = event.start_mark.line + 1  # type: ignore[union-attr]
            if isinstance(event, yaml.AliasEvent):
                raise _at(line, f"an alias ({_quoted('*' + str(event.anchor))}); write out what it stands for")
            if isinstance(event, yaml.DocumentStartEvent):
                self._begin(event, line)
            elif isinstance(event, yaml.NodeEvent):
                self._node(event, line)
            elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
                self.open.pop()
        return self.document[0] if self.document else None

    def _begin(self, event: yaml.DocumentStartEvent, line: int) -> None:
        self.documents += 1
        if self.documents > 1:
            raise _at(line, "a second document; a file holds one")
        if event.tags:
            raise _at(line, "a %TAG line; write plain values")

    def _node(self, event: Any, line: int) -> None:
        if event.anchor is not None:
            raise _at(line, f"an anchor ({_quoted('&' + event.anchor)}); write out each value where it belongs")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise _at(line, f"a tag ({_quoted(tag)}); write plain values")
        self.values += 1
        if self.values > _MOST_VALUES:
            raise _at(line, f"more than {_MOST_VALUES} keys and values")
        here = self.open[-1]
        if isinstance(event, yaml.ScalarEvent):
            if here.wants_key:
                here.key = _key(event, here.holder, line)
            else:
                here.put(_scalar(event, line))
            return
        if here.wants_key:
            raise _at(line, "a key that is a list or has keys itself; a key is text")
        if len(self.open) > DEEPEST:
            raise _at(line, f"more than {DEEPEST} levels of lists and keys")
        holder: list[Any] | dict[str, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        here.put(holder)
        self.open.append(_Open(holder))


def _key(event: yaml.ScalarEvent, holder: Any, line: int) -> str:
    key = _text(event.value, line)
    if key == "<<" and event.implicit[0]:
        raise _at(line, "a merge key (<<); write out the keys that it brings")
    if key in holder:
        raise _at(line, f"{_quoted(key)} is given twice")
    return key


def _scalar(event: yaml.ScalarEvent, line: int) -> Any:
    """A value as YAML 1.1 reads it, where that is what it looks like."""
    text = _text(event.value, line)
    resolved: str = _RESOLVER.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
    tag = resolved.rpartition(":")[2]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() in ("yes", "true", "on")
    if tag in ("int", "float"):
        return _number(text, tag, line)
    if tag == "timestamp":
        raise _at(line, f"{_quoted(text)} reads as a date; put it in quotes if it is text")
    return text


def _number(text: str, tag: str, line: int) -> int | float:
    if len(text) > _LONGEST_NUMBER:
        raise _at(line, f"a number of {len(text)} characters")
    if tag == "int":
        if not _WHOLE.fullmatch(text):
            raise _at(line, f"{_quoted(text)} reads as a number that is not decimal; write it so, or in quotes as text")
        whole = int(text.replace("_", ""))
        if abs(whole) > _LARGEST_WHOLE:
            raise _at(line, f"{_quoted(text)} is too large; whole numbers go up to 2^53 - 1")
        return whole
    if ":" in text:
        raise _at(line, f"{_quoted(text)} reads as a number of minutes; write it as decimal, or in quotes as text")
    spelt = text.replace("_", "").lower()
    number = float(spelt.replace(".inf", "inf").replace(".nan", "nan"))
    if number - number != 0:
        raise _at(line, f"{_quoted(text)} is no finite number")
    return number


def _text(text: str, line: int) -> str:
    """A text, whose escapes may spell what the file itself may not hold."""
    unfit = _UNFIT.search(text)
    if unfit is not None:
        raise _at(line, _unfit(unfit[0]))
    return text


def _unfit(character: str) -> str:
    return f"a control character or change of direction (U+{ord(character):04X})"


def _quoted(text: str) -> str:
    return repr(neutral(text if len(text) <= 60 else text[:57] + "..."))


def _at(line: int, reason: str) -> ValueError:
    return ValueError(f"line {line}: {reason}")
