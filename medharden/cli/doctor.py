"""`medharden doctor`: what this machine has of what medharden uses, what is missing, and the line that brings it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from rich.table import Table

from medharden._version import __version__
from medharden.cli.console import marked, out
from medharden.extras import EXTRAS
from medharden.sizes import shown_bytes

__all__ = ["Item", "run_doctor", "seen"]

_TESTED_ON = ((3, 11), (3, 12), (3, 13))
_SHARED = {"google": "protobuf"}  # modules that several distributions fill, to the part and distribution meant
_LEAST_FREE = 2 * 2**30
_COLOURS = {"ok": "green", "missing": "yellow", "wrong": "red"}
_CODECS = {
    "uncompressed": "1.2.840.10008.1.2.1",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
}


@dataclass(frozen=True)
class Item:
    """One thing that was looked at.

    Attributes:
        what: is looked at.
        state: `ok`, `missing` (some commands need it) or `wrong`.
        found: version, device or place.
        do: what mends it, where something is to be done.
    """

    what: str
    state: str
    found: str
    do: str = ""


def run_doctor(folder: Path) -> int:
    """Prints what was seen; 1 where something is wrong, 0 where at most something is missing."""
    items = seen(folder)
    code = int(any(item.state == "wrong" for item in items))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for item in items:
        table.add_row(marked(f"[{_COLOURS[item.state]}]{{}}[/]", item.state), item.what, item.found)
    lines: list[Any] = [table, *(marked("[bold]to do:[/] {}: {}", i.what, i.do) for i in items if i.do)]
    out.show(lines, {"medharden": __version__, "items": [asdict(item) for item in items], "exit_code": code})
    return code


def seen(folder: Path) -> tuple[Item, ...]:
    """Everything that is looked at; nothing of the user's data is."""
    return (
        Item("medharden", "ok", __version__),
        _python(),
        Item("system", "ok", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"),
        *_packages(),
        *_devices(),
        *_codecs(),
        _writable(folder),
        _disk("temporary folder", Path(tempfile.gettempdir())),
        _disk("this folder", folder),
    )


def _python() -> Item:
    found = platform.python_version()
    if sys.version_info[:2] in _TESTED_ON:
        return Item("Python", "ok", found)
    return Item(
        "Python", "missing", f"{found}, on which not all tests were run", "use Python 3.11 where something fails"
    )


def _packages() -> Iterator[Item]:
    homes = packages_distributions()
    for extra, modules in EXTRAS.items():
        lacking = sorted(name for name in modules if not _there(name))
        if lacking:
            mend = f"pip install '.[{extra}]' in the source, or 'FILE.whl[{extra}]'"
            yield Item(f"extra `{extra}`", "missing", f"without {', '.join(lacking)}", mend)
            continue
        brought = (_SHARED.get(name, homes[name][0]) for name in sorted(modules & set(homes)))
        versions = dict.fromkeys(f"{home} {version(home)}" for home in brought)
        yield Item(f"extra `{extra}`", "ok", ", ".join(versions))


def _there(module: str) -> bool:
    inner = f"{module}.{_SHARED[module]}" if module in _SHARED else module
    try:
        return importlib.util.find_spec(inner) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        return False


def _devices() -> Iterator[Item]:
    if not _there("torch"):
        return
    torch = importlib.import_module("torch")
    yield Item("cpu", "ok", f"{torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(number).total_memory
        yield Item(f"cuda:{number}", "ok", f"{torch.cuda.get_device_name(number)}, {shown_bytes(memory)}")
    if torch.backends.mps.is_available():
        yield Item("mps", "ok", "Apple GPU")


def _codecs() -> Iterator[Item]:
    if not _there("pydicom"):
        return
    decoders = importlib.import_module("pydicom.pixels").get_decoder
    for name, syntax in _CODECS.items():
        if decoders(syntax).is_available:
            yield Item(f"DICOM {name}", "ok", syntax)
        else:
            mend = "pip install python-gdcm, which the extra `harden` brings"
            yield Item(f"DICOM {name}", "missing", f"{syntax} can't be decoded", mend)


def _writable(folder: Path) -> Item:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Item("write access", "ok", "to this folder")
    except OSError as error:
        return Item(
            "write access", "wrong", error.strerror or "none", "change to a folder that is yours, or name --out"
        )


def _disk(what: str, folder: Path) -> Item:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Item(f"disk, {what}", "wrong", error.strerror or "unknown", "set TMPDIR to a folder that is there")
    if free < _LEAST_FREE:
        return Item(f"disk, {what}", "wrong", f"{shown_bytes(free)} free", "free space there, or set TMPDIR")
    return Item(f"disk, {what}", "ok", f"{shown_bytes(free)} free")
