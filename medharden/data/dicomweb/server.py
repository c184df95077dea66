"""What is asked of a DICOMweb server: which instances a series has (QIDO-RS), and the instances (WADO-RS)."""

from __future__ import annotations

import io
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from medharden.data.dicomweb.address import TOKEN, Address
from medharden.data.dicomweb.query import Query
from medharden.data.dicomweb.requesting import RedirectedError, Requests, TooLongError, TooSlowError
from medharden.data.formats.image import quiet_readers
from medharden.errors import DataError
from medharden.shortage import shortage

__all__ = ["LargeSeriesError", "Series", "SeriesError", "Server", "is_uid"]

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_ATTEMPTS = 3
_LONGEST_SEARCH, _MOST_SECONDS = 2**26, 3600.0
_MOST_INSTANCES = 100_000
_LONGEST_WAIT = 60.0
_PASSING = frozenset((408, 429, 500, 502, 503, 504))
_STORED = (("application/dicom", "*"),)  # in the transfer syntax in which it lies there
_IS_ROOT = "is the address the root of a DICOMweb service, such as https://pacs.example/dicom-web?"

T = TypeVar("T")


class SeriesError(DataError):
    """A series that can't be retrieved; its text is the reason alone."""


class LargeSeriesError(SeriesError):
    """A series of more bytes than may come."""


class _PassingError(DataError):
    """What may be over in a moment; `seconds` are what the server asks to wait."""

    seconds: float = 0.0


class _PassingSeriesError(SeriesError, _PassingError):
    """The same, of one series."""


@dataclass(frozen=True)
class Series:
    """A series as the server knows it; `instances` are sorted."""

    study: str
    uid: str
    instances: tuple[str, ...]


def is_uid(text: str) -> bool:
    """Whether a text is a UID: numbers joined by dots, up to 64 signs, so that it can be part of a path."""
    return text.isascii() and len(text) <= 64 and _UID.fullmatch(text) is not None


class Server:
    """A DICOMweb server, asked by one thread."""

    def __init__(self, address: Address, *, wait: float = 1.0, timeouts: tuple[float, float] = (10.0, 60.0)) -> None:
        """Opens no connection yet.

        Args:
            address: where it is.
            wait: seconds before the second attempt; each further one waits twice as long.
            timeouts: seconds to connect, and between two parts of an answer.
        """
        for name in ("dicomweb_client", "retrying"):  # they log UIDs, what the server warns of, and tracebacks
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._token, self._wait = bool(address.token), wait
        self._requests = Requests(address)
        self._client = DICOMwebClient(address.url, session=self._requests, permissive_uid=True, timeout=timeouts)
        self._client.set_http_retry_params(retry=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()

    def find(self, uid: str) -> tuple[Series, ...]:
        """The series of a UID: the one that has it, or all those of the study that has it.

        Raises:
            SeriesError: the server has no such series and no such study, or several.
            DataError: it can't be asked.
        """
        return self._tried(lambda: self._find(uid))

    def search(self, query: Query) -> list[dict[str, Any]]:
        """What the server answers to a query, in DICOM JSON, each study or series once.

        A server may answer with some of them, and is then asked for the others.

        Raises:
            DataError: it can't be asked, answers with something else, or with more than a cohort has.
        """
        return self._tried(lambda: self._search(query))

    def retrieve(self, series: Series, put: Callable[[int, bytes], None], limit: int) -> int:
        """Hands out each instance once as a DICOM file, by its number among the series' instances.

        Args:
            series: as it was found.
            put: called with number and file; again from the first where an attempt broke off.
            limit: bytes that may come.

        Returns:
            How many bytes came.

        Raises:
            SeriesError: what came is not the series, or more than the limit.
            DataError: the server can't be asked.
        """
        return self._tried(lambda: self._retrieve(series, put, limit))

    def _find(self, uid: str) -> tuple[Series, ...]:
        found = self._series_of(uid, _SERIES, "SeriesInstanceUID")
        if len(found) > 1:
            raise SeriesError(f"is a series of {len(found)} studies, where a UID must name one")
        found = found or self._series_of(uid, _STUDY, "StudyInstanceUID")
        if not found:
            raise SeriesError(
                "is a series that the server does not have, or does not show under this token; nor is it a study"
            )
        return tuple(self._with_instances(study, one) for study, one in sorted(found))

    def _series_of(self, uid: str, tag: str, name: str) -> set[tuple[str, str]]:
        """Study and series of what the search for a UID finds."""
        self._requests.allow(_LONGEST_SEARCH, _MOST_SECONDS)
        with self._told("the search for a series answers with what is no DICOM JSON; " + _IS_ROOT):
            found = self._client.search_for_series(search_filters={name: uid})
            pairs = {(_value(one, _STUDY), _value(one, _SERIES)) for one in found if _value(one, tag) == uid}
        if not all(is_uid(study) and is_uid(one) for study, one in pairs):
            raise SeriesError("is a series whose study has no UID")
        return pairs

    def _with_instances(self, study: str, uid: str) -> Series:
        with self._told("the search for instances answers with what is no DICOM JSON"):
            instances = self._instances(study, uid)
        if not instances:
            raise SeriesError("is a series without instances")
        if not all(map(is_uid, instances)):
            raise SeriesError("is a series with instances that have no UID")
        return Series(study, uid, tuple(sorted(instances)))

    def _search(self, query: Query) -> list[dict[str, Any]]:
        self._requests.allow(_LONGEST_SEARCH, _MOST_SECONDS)
        known: dict[str, dict[str, Any]] = {}
        while len(known) <= _MOST_INSTANCES:
            limit = None if query.limit is None else query.limit - len(known)
            asked: dict[str, Any] = {
                "fuzzymatching": query.fuzzy,
                "limit": limit,
                "offset": query.offset + len(known) or None,
                "fields": query.fields,
                "search_filters": dict(query.filters),
            }
            with self._told("the search answers with what is no DICOM JSON; " + _IS_ROOT):
                if query.of_studies:
                    found = self._client.search_for_studies(**asked)
                else:
                    found = self._client.search_for_series(query.study or None, **asked)
                named = {_value(one, _STUDY if query.of_studies else _SERIES): one for one in found}
            new = {uid: one for uid, one in named.items() if uid not in known}
            known |= new
            if not new or (limit is not None and len(new) >= limit):
                return list(known.values())[: query.limit]
        raise DataError(f"the search finds more than {_MOST_INSTANCES}; narrow it by further attributes")

    def _instances(self, study: str, uid: str) -> set[str]:
        """All of them: a server may answer with some, and is then asked for the others."""
        known: set[str] = set()
        while len(known) <= _MOST_INSTANCES:
            offset = {"offset": len(known)} if known else {}
            found = self._client.search_for_instances(study, uid, **offset)
            new = {_value(one, _INSTANCE) for one in found} - known
            if not new:
                return known
            known |= new
        raise SeriesError(f"is a series of more than {_MOST_INSTANCES} instances")

    def _retrieve(self, series: Series, put: Callable[[int, bytes], None], limit: int) -> int:
        numbers = {instance: number for number, instance in enumerate(series.instances)}
        got: set[str] = set()
        self._requests.allow(limit, _MOST_SECONDS)
        with self._told("is answered with what is no DICOM", of_series=True):
            for dataset in self._client.iter_series(series.study, series.uid, media_types=_STORED):
                instance = str(dataset.get("SOPInstanceUID", ""))
                if str(dataset.get("SeriesInstanceUID", "")) != series.uid or instance not in numbers:
                    raise SeriesError("is answered with an instance that is none of the series")
                if instance in got:
                    raise SeriesError("is answered with an instance twice")
                got.add(instance)
                put(numbers[instance], _file(dataset))
        if len(got) < len(numbers):
            raise _PassingSeriesError(f"has {len(numbers)} instances by the server's search, and {len(got)} came")
        return limit - self._requests.left

    def _tried(self, ask: Callable[[], T]) -> T:
        for attempt in range(1, _ATTEMPTS):
            try:
                return ask()
            except _PassingError as error:
                time.sleep(max(self._wait * 2 ** (attempt - 1), error.seconds))
        return ask()

    @contextmanager
    def _told(self, unreadable: str, *, of_series: bool = False) -> Iterator[None]:
        """What the libraries raise, in words that hold neither UID nor address."""
        try:
            with quiet_readers(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (DataError, OSError) as error:
            if not isinstance(error, requests.RequestException):
                raise
            if isinstance(error, requests.exceptions.InvalidJSONError):
                raise DataError(unreadable) from None
            raise self._failure(error) from None
        except RedirectedError:
            raise DataError(
                "the DICOMweb server sends to another address, which is not followed; give that one to --dicomweb"
            ) from None
        except TooLongError:
            raise LargeSeriesError("has more bytes than a series may have (--max-decoded)") from None
        except TooSlowError:
            raise SeriesError(f"takes longer than a series may ({_MOST_SECONDS / 60:g} minutes)") from None
        except Exception as error:  # whatever a parser makes of another's bytes
            if shortage(error) is not None:
                raise
            raise (SeriesError if of_series else DataError)(unreadable) from None

    def _failure(self, error: requests.RequestException) -> DataError:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            state = f"the token in {TOKEN}" if self._token else f"no token: set {TOKEN}"
            return DataError(f"the DICOMweb server refuses access (status {status}) with {state}; ask whoever runs it")
        if status in (404, 410):
            return SeriesError(
                f"is not there on the DICOMweb server (status {status}); if that is so of all, {_IS_ROOT}"
            )
        if status in _PASSING:
            passing = _PassingError(
                f"the DICOMweb server answers with status {status}, {_ATTEMPTS} times; try again later"
            )
            passing.seconds = _asked_to_wait(error.response)
            return passing
        if status:
            return DataError(f"the DICOMweb server answers with status {status}; {_IS_ROOT}")
        if isinstance(error, requests.exceptions.SSLError):
            return DataError(
                "the DICOMweb server's certificate can't be verified (of another authority or name, or expired); "
                "where your site has an authority of its own, set REQUESTS_CA_BUNDLE to its file"
            )
        if isinstance(error, requests.exceptions.Timeout):
            return _PassingError(f"the DICOMweb server does not answer in time, {_ATTEMPTS} times")
        broken = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)
        if isinstance(error, broken):
            return _PassingError(
                f"the connection to the DICOMweb server can't be made or breaks off, {_ATTEMPTS} times; is it running?"
            )
        return DataError(f"the DICOMweb server's answer can't be used ({type(error).__name__}); {_IS_ROOT}")


def _asked_to_wait(response: Any) -> float:
    """Seconds of the answer's Retry-After, within bounds; 0 where it gives none, or a date."""
    said = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(said), _LONGEST_WAIT) if said.isascii() and said.isdecimal() else 0.0


def _value(found: Any, tag: str) -> str:
    """The first value of an element in DICOM JSON, or ""."""
    values = found.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _file(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
