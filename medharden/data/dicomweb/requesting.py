"""HTTP as the DICOMweb client asks for it: bounded in bytes and time, no redirect followed, no other credentials."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import requests

from medharden.data.dicomweb.address import Address

__all__ = ["RedirectedError", "Requests", "TooLongError", "TooSlowError"]


class RedirectedError(Exception):
    """The server sends to another address."""


class TooLongError(Exception):
    """An answer has more bytes than were agreed."""


class TooSlowError(Exception):
    """An answer takes longer than was agreed, however steadily it comes."""


class Requests:
    """What the client takes for its session.

    Attributes:
        headers: of every request.
        left: bytes that answers may still take.
    """

    def __init__(self, address: Address) -> None:
        """Opens no connection yet."""
        self._session = requests.Session()
        self._session.trust_env = not address.loopback  # proxies and certificates of the site; none to this machine
        self._session.verify = address.authority or True
        self._session.auth = partial(_authorised, address.token)  # also without a token: else .netrc would be sent
        self.headers = self._session.headers
        self.left, self._until = 0, 0.0
        self._open: Any = None

    def allow(self, count: int, seconds: float) -> None:
        """Sets how many bytes the answers from here on may take, and how long."""
        self.left, self._until = count, time.monotonic() + seconds

    def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: Any = None,
    ) -> Any:
        """One request; the body is read as it is asked for, whatever `stream` says, so that it is counted."""
        kept = {name: value for name, value in (headers or {}).items() if name.lower() != "host"}  # it lacks the port
        kept["Accept-Encoding"] = "identity"
        self._end()
        response = self._open = self._session.get(
            url, headers=kept, stream=True, timeout=timeout, allow_redirects=False
        )
        if 300 <= response.status_code < 400:
            raise RedirectedError
        response.iter_content = partial(self._counted, response.iter_content)
        return response

    def close(self) -> None:
        """Ends the connections."""
        self._end()
        self._session.close()

    def _end(self) -> None:
        """Lets go of the last answer, which may not have been read to its end."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _counted(self, content: Any, chunk_size: int = 1, decode_unicode: bool = False) -> Iterator[bytes]:
        for chunk in content(chunk_size):
            self.left -= len(chunk)
            if self.left < 0:
                raise TooLongError
            if time.monotonic() > self._until:
                raise TooSlowError
            yield chunk


def _authorised(token: str, request: Any) -> Any:
    if token:
        request.headers["Authorization"] = f"Bearer {token}"
    return request
