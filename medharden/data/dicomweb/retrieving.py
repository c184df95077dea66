"""The series of a manifest or a search, each retrieved once and whole, in a folder such as a local export is."""

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
from medharden.data.dicomweb.query import Query, as_table
from medharden.data.dicomweb.server import LargeSeriesError, Series, SeriesError, Server, is_uid
from medharden.data.pseudonyms import keyed_digest, pseudonym
from medharden.data.sources.columns import join_tables, path_columns, read_table, roles_of
from medharden.data.store.cache import RETRIEVED, retrieved_folder
from medharden.errors import DataError, OutputError, Problem
from medharden.links import outside
from medharden.protocol import Columns, Protocol
from medharden.record import Finding, Progress
from medharden.sizes import MAX_DECODED

__all__ = ["MOST_BYTES", "Retrieved", "retrieved"]

MOST_BYTES = 2**38
"""Bytes that one command retrieves at most: 256 GiB."""

_ABOUT, _ANSWER, _STUDY = "series.json", "answer.csv", "study-"
_MOST_PROBLEMS = 20
_MOST_LINES = 5


@dataclass(frozen=True)
class Retrieved:
    """What was retrieved.

    Attributes:
        data: the manifest beside the series, as `load_cohort` takes it.
        noted: for the record.
        known: whether the server was not searched anew, because the cache has the answer of before.
    """

    data: Path
    noted: tuple[Finding, ...]
    known: bool = False


@contextmanager
def retrieved(
    table: Path | Query,
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
    """Retrieves the series that the rows of a manifest, or a search, name by UID; the folder lasts as long as this.

    Args:
        table: a CSV file with the labels, whose rows name a series, or a study, that the server has; or a search, whose
            answer is the table. Tables that the protocol joins to it lie in the working directory then.
        protocol: whose `columns` say which columns of the manifest hold the UIDs.
        address: the server.
        key: of the pseudonyms.
        cache: where series, and the answer of a search, stay for later commands, which retrieve only what lacks; None
            keeps none.
        max_decoded: bytes of a series, which reading it takes at least.
        most_bytes: bytes in all.
        progress: called with `("retrieve", done, total)`.
        wait: seconds before a second attempt.

    Raises:
        DataError: with each series that can't be had, by row and pseudonym; or the server can't be asked.
        OutputError: the folder can't be used, or the disk is full.
    """
    columns = protocol.columns
    if not isinstance(table, Query):
        _wanted(table, protocol)  # before anything is made or asked for
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
            view = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=".view-", dir=base)))
            known = False
            if isinstance(table, Query):
                there, root = view / _ANSWER, Path()
                known = _answered(table.wanting(columns), columns, server, base, key, there)
            else:
                there, root = view / table.name, table.parent
                _copy(table, there)
            for join in columns.join:
                _copy_joined(root, join.table, view)
            series = _wanted(there, protocol)
            files = _all(series, pool, lambda uid: name(f"{uid}.dcm" if alone else uid), progress)
            for uid, paths in files.items():
                _link(paths, view / f"{uid}.dcm" if alone else view / uid)
        count = sum(len(folders) for folders in files.values())
        how = "that a search of it found" if isinstance(table, Query) else "that the manifest names by UID"
        message = f"{count} series {how} were retrieved from a DICOMweb server; its address is on no record."
        yield Retrieved(there, (Finding("data.dicomweb", "info", message),), known)


def _answered(query: Query, columns: Columns, server: Server, base: Path, key: bytes, there: Path) -> bool:
    """Writes the answer of a search as a table; whether it was there already, of a search before."""
    about = json.dumps([query.text, query.fields])
    kept = base / f"answer-{keyed_digest(key, 'dicomweb search', about)[:32]}.csv"
    known = kept.is_file() and not kept.is_symlink()
    if not known:
        text = as_table(server.search(query), query, columns).encode()
        part = there.with_suffix(".part")
        _write(part, text)
        os.replace(part, kept)
    _copy(kept, there)
    return known


def _copy_joined(root: Path, table: str, view: Path) -> None:
    """Has a further table lie beside the manifest; one that is not there, or outside, is told when it is read."""
    below = view / table
    if not below.resolve().is_relative_to(view.resolve()) or outside(root, root / table):
        return
    if (root / table).is_file() and not below.exists():
        below.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _copy(root / table, below)


def _copy(table: Path, there: Path) -> None:
    shutil.copyfile(table, there)
    there.chmod(0o600)


def _wanted(table: Path, protocol: Protocol) -> dict[str, int]:
    """The UIDs with the first row of each."""
    if table.suffix.lower() not in (".csv", ".tsv") or not table.is_file():
        raise DataError(
            "with --dicomweb --data is a CSV file: a row a series, with its SeriesInstanceUID (a column named in the "
            "protocol's columns.path) and its label"
        )
    header, rows, _ = read_table(table)
    header = join_tables(table.parent, header, rows, protocol.columns)
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
            "with --dicomweb each row names its series by SeriesInstanceUID, or its study by StudyInstanceUID (numbers "
            f"joined by dots, up to 64 signs), in the column of columns.path; {found}"
        )
    return series


def _all(
    series: dict[str, int], pool: _Pool, name: Callable[[str], str], progress: Progress | None
) -> dict[str, dict[str, list[Path]]]:
    """The files of each series, by the row's UID and its own."""
    files: dict[str, dict[str, list[Path]]] = {}
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

    def series(self, uid: str) -> dict[str, list[Path]]:
        """The files of a series, or of each series of a study, retrieved where they are not there yet."""
        study = self._base / f"{_STUDY}{uid}.json"
        names = _listed(study)
        files = {one: _whole(self._base / one) for one in names or [uid]}
        if None in files.values():
            found = self._server.find(uid)
            files = {one.uid: _whole(self._base / one.uid) for one in found}
            for one in found:
                if files[one.uid] is None:
                    self._retrieve(one)
                    files[one.uid] = _whole(self._base / one.uid)
            if [uid] != list(files):
                part = Path(tempfile.mkdtemp(prefix=".part-", dir=self._base)) / "study"
                _write(part, json.dumps(list(files)).encode())
                os.replace(part, study)
                part.parent.rmdir()
        whole = {one: paths for one, paths in files.items() if paths is not None}
        if len(whole) < len(files):
            raise OutputError("a series that was retrieved is not there any more; does something else clear the cache?")
        if self._alone and len(whole) > 1:
            raise SeriesError(f"is a study of {len(whole)} series, expected one instance a case (input.dims is 2)")
        if self._alone and (count := sum(map(len, whole.values()))) > 1:
            raise SeriesError(f"is a series of {count} instances, expected one a case (input.dims is 2)")
        return whole

    def _retrieve(self, found: Series) -> None:
        folder = self._base / found.uid
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


def _listed(study: Path) -> list[str]:
    """The series of a study that was retrieved before; none where it was not."""
    try:
        names = json.loads(study.read_bytes())
        return names if isinstance(names, list) and all(isinstance(n, str) and is_uid(n) for n in names) else []
    except (OSError, ValueError):
        return []


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


def _link(series: dict[str, list[Path]], target: Path) -> None:
    """Has the files of a row lie in the view too: under one name, in a folder, or each series in a folder there."""
    if target.suffix == ".dcm":
        pairs = [(paths[0], target) for paths in series.values()]
    else:
        folders = {uid: target if len(series) == 1 else target / uid for uid in series}
        for folder in folders.values():
            folder.mkdir(mode=0o700, parents=True)
        pairs = [(path, folders[uid] / path.name) for uid, paths in series.items() for path in paths]
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
