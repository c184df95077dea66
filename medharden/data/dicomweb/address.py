"""Where a DICOMweb server is and who asks: what is typed and what the environment holds, checked before it is used."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from medharden.errors import DataError

__all__ = ["TOKEN", "Address", "address_of"]

TOKEN = "MEDHARDEN_DICOMWEB_TOKEN"  # noqa: S105 - the variable's name
_TOKEN_SIGNS = re.compile(r"[\x21-\x7e]{1,16384}")


@dataclass(frozen=True)
class Address:
    """A server.

    Attributes:
        url: of its DICOMweb service, without a slash at the end.
        loopback: whether it is this machine, to which alone plain HTTP may go.
        token: what it is asked with, as `Authorization: Bearer`; "" for nothing.
    """

    url: str
    loopback: bool
    token: str = field(default="", repr=False)


def address_of(url: str) -> Address:
    """The server of an address, with the token of the environment variable MEDHARDEN_DICOMWEB_TOKEN.

    Raises:
        DataError: it is no address of a server, or one that can't be asked safely.
    """
    expected = "expected the root of a DICOMweb service, such as --dicomweb https://pacs.example/dicom-web"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise DataError(f"--dicomweb is no address; {expected}") from None
    if parts.username is not None or parts.password is not None:
        raise DataError(
            f"--dicomweb holds a user's name or password, which a command line shows to others; set {TOKEN} to a token"
        )
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise DataError(f"--dicomweb is no address; {expected}")
    if parts.query or parts.fragment:
        raise DataError(f"--dicomweb holds a query (? or #): which series are retrieved says --data; {expected}")
    loopback = _is_loopback(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise DataError(
            f"--dicomweb is neither https nor plain http to this machine itself (127.0.0.1), where images and token "
            f"could be read on the way; {expected}"
        )
    token = os.environ.get(TOKEN, "").strip()
    if token and not _TOKEN_SIGNS.fullmatch(token):
        raise DataError(f"{TOKEN} holds signs that no token has, such as blanks; expected the token alone")
    return Address(url.rstrip("/"), loopback, token)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
