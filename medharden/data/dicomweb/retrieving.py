"""The series of a manifest, each retrieved once and whole, and a folder in which they lie as a local export would."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medharden.data.dicomweb.address import Address
from medharden.data.dicomweb.server import LargeSeriesError, SeriesError, Server, is_uid
from medharden.data.pseudonyms import keyed_digest, pseudonym
from medharden.data.sources.columns import path_columns, read_joined, roles_of
from medharden.data.store.cache import RETRIEVED, retrieved_folder
from medharden.errors import DataError, OutputError, Problem
from medharden.protocol import Protocol
from medharden.record import Finding, Progress
from medharden.sizes import MAX_DECODED

__all__ = ["MOST_BYTES", "Retrieved", "retrieved"]

MOST_BYTES = 2**38
"""Bytes that one command retrieves at most: 256 GiB."""

_ABOUT = "series.json"
_MOST_PROBLEMS = 20
_MOST_LINES = 5


@dataclass(frozen=True)
class Retrieved:
    """What was retrieved.

    Attributes:
        data: the manifest beside the series, as `load_cohort` takes it.
        noted: for the record.
    """

    data: Path
    noted: tuple[Finding, ...]


@contextmanager
def retrieved(
    table: Path,
    protocol: Protocol,
    address: Address,
    *,
    key: bytes,
    cache: Path | None = None,
    max_decoded: int = MAX_DECODED,
    most_bytes: int = MOST_BYTES,
    progress: Progress | None = None,
    wait: float = 1.0,
) -> Iterator[Retrieved]:
    """Retrieves the series that the rows of a manifest name by SeriesInstanceUID; the folder lasts as long as this.

    Args:
        table: a CSV file; the labels stand in it, the images on the server.
        protocol: whose `columns` say which columns of the manifest hold the UIDs.
        address: the server.
        key: of the pseudonyms.
        cache: where series stay for later commands, which retrieve only what lacks; None keeps none.
        max_decoded: bytes of a series, which reading it takes at least.
        most_bytes: bytes in all.
        progress: called with `("retrieve", done, total)`.
        wait: seconds before a second attempt.

    Raises:
        DataError: with each series that can't be had, by row and pseudonym; or the server can't be asked.
        OutputError: the folder can't be used, or the disk is full.
    """
    series, tables = _wanted(table, protocol)
    alone = protocol.input.dims == 2 and not protocol.input.patterned
    with ExitStack() as held:
        if cache is None:
            base = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="medharden-dicomweb-")))
        else:
            base = retrieved_folder(cache, RETRIEVED + keyed_digest(key, "dicomweb", address.url)[:32])
        server = held.enter_context(Server(address, wait=wait))
        name = partial(pseudonym, key, "case")
        pool = _Pool(base, server, max_decoded, most_bytes, alone)
        with _written():
            files = _all(series, pool, lambda uid: name(f"{uid}.dcm" if alone else uid), progress)
            view = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=".view-", dir=base)))
            for uid, paths in files.items():
                _link(paths, view / f"{uid}.dcm" if alone else view / uid)
            for other in tables:
                below = view / other.relative_to(table.parent)
                below.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(other, below)
                below.chmod(0o600)
        message = (
            f"{len(files)} series that the manifest names by UID were retrieved from a DICOMweb server; its address "
            "is on no record."
        )
        yield Retrieved(view / table.name, (Finding("data.dicomweb", "info", message),))


def _wanted(table: Path, protocol: Protocol) -> tuple[dict[str, int], list[Path]]:
    """The UIDs with the first row of each, and the tables that the protocol joins."""
    if table.suffix.lower() not in (".csv", ".tsv") or not table.is_file():
        raise DataError(
            "with --dicomweb --data is a CSV file: a row a series, with its SeriesInstanceUID (a column named in the "
            "protocol's columns.path) and its label"
        )
    header, rows, _ = read_joined(table, protocol.columns)
    columns = path_columns(table, header, roles_of(header, rows, protocol), protocol.columns)
    series: dict[str, int] = {}
    wrong = []
    for line, row in rows.items():
        for uid in filter(None, (row[column] for column in columns)):
            series.setdefault(uid, line)
            if not is_uid(uid):
                wrong.append(line)
    if wrong or not series:
        shown = ", ".join(map(str, wrong[:_MOST_LINES])) + (", ..." if len(wrong) > _MOST_LINES else "")
        found = f"{len(wrong)} rows hold something else ({shown})" if wrong else "no row holds one"
        raise DataError(
            f"with --dicomweb each row names its series by SeriesInstanceUID (numbers joined by dots, up to 64 signs) "
            f"in the column of columns.path; {found}"
        )
    return series, [table, *(table.parent / join.table for join in protocol.columns.join)]


def _all(
    series: dict[str, int], pool: _Pool, name: Callable[[str], str], progress: Progress | None
) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    problems: list[Problem] = []
    for done, (uid, line) in enumerate(series.items()):
        if progress is not None:
            progress("retrieve", done, len(series))
        try:
            files[uid] = pool.series(uid)
        except SeriesError as error:
            problems.append(Problem(name(uid), f"row {line}: {error}"))
        if len(problems) == _MOST_PROBLEMS:
            break
    if problems:
        told = "\n".join(f"  case {problem.case}, {problem.reason}" for problem in problems)
        more = ", and no more were asked for" if len(problems) == _MOST_PROBLEMS else ""
        raise DataError(
            f"{len(problems)} of {len(series)} series can't be retrieved{more}; mend these rows, or leave them out:\n"
            f"{told}",
            tuple(problems),
        )
    if progress is not None:
        progress("retrieve", len(series), len(series))
    return files


class _Pool:
    """Series of one server, each in a folder of its own that appears when it is whole."""

    def __init__(self, base: Path, server: Server, max_series: int, most_bytes: int, alone: bool) -> None:
        self._base, self._server, self._max_series = base, server, max_series
        self._left, self._alone = most_bytes, alone

    def series(self, uid: str) -> list[Path]:
        """The files of a series, retrieved where they are not there yet."""
        folder = self._base / uid
        files = _whole(folder)
        if files is None:
            self._retrieve(uid, folder)
            files = _whole(folder)
        if files is None:
            raise OutputError("a series that was retrieved is not there any more; does something else clear the cache?")
        if self._alone and len(files) > 1:
            raise SeriesError(f"is a series of {len(files)} instances, expected one a case (input.dims is 2)")
        return files

    def _retrieve(self, uid: str, folder: Path) -> None:
        found = self._server.find(uid)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._base))  # mode 0700
        try:
            limit = min(self._max_series, self._left)
            try:
                self._left -= self._server.retrieve(found, partial(_put, part), limit)
            except LargeSeriesError:
                if limit == self._max_series:
                    raise
                raise DataError(
                    "the series have more bytes in all than one command retrieves; divide the manifest (with --cache, "
                    "what was retrieved is kept)"
                ) from None
            sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
            _write(part / _ABOUT, json.dumps({"files": sizes}).encode())
            if folder.exists() and _whole(folder) is None:
                with tempfile.TemporaryDirectory(prefix=".torn-", dir=self._base) as torn:
                    os.rename(folder, Path(torn) / "series")
            try:
                os.rename(part, folder)
            except OSError:
                if _whole(folder) is None:  # else another command was faster
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _whole(folder: Path) -> list[Path] | None:
    """The files of a series that is there as it was written; None where one lacks or is of another size."""
    try:
        sizes = json.loads((folder / _ABOUT).read_bytes())["files"]
        files = [folder / name for name in sizes]
        found = [path.lstat() for path in files]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    right = all(stat.S_ISREG(s.st_mode) and s.st_size == sizes[p.name] for s, p in zip(found, files, strict=True))
    return files if files and right else None


def _put(folder: Path, number: int, data: bytes) -> None:
    path = folder / f"{number:06d}.dcm"
    path.unlink(missing_ok=True)  # of an attempt that broke off
    _write(path, data)


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _link(files: list[Path], target: Path) -> None:
    """Has the files of a series lie in the view too: under one name, or in a folder."""
    if target.suffix == ".dcm":
        pairs = [(files[0], target)]
    else:
        target.mkdir(mode=0o700)
        pairs = [(path, target / path.name) for path in files]
    for path, there in pairs:
        try:
            os.link(path, there)
        except OSError:  # a filesystem without hard links
            shutil.copy(path, there)


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"what was retrieved can't be kept: {error.strerror}; expected a folder of yours with free space (--cache, "
            "or TMPDIR without it)"
        ) from None
