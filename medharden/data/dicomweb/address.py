"""Where a DICOMweb server is and who asks: what is typed and what the environment holds, checked before it is used."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from medharden.errors import DataError

__all__ = ["TOKEN", "Address", "address_of"]

TOKEN = "MEDHARDEN_DICOMWEB_TOKEN"  # noqa: S105 - the variable's name
_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_TOKEN_SIGNS = re.compile(r"[\x21-\x7e]{1,16384}")


@dataclass(frozen=True)
class Address:
    """A server.

    Attributes:
        url: of its DICOMweb service, without a slash at the end.
        loopback: whether it is this machine, to which alone plain HTTP may go.
        token: what it is asked with, as `Authorization: Bearer`; "" for nothing.
        authority: file or folder of the certificates (PEM) that vouch for it; "" for those that come with Python.
    """

    url: str
    loopback: bool
    token: str = field(default="", repr=False)
    authority: str = ""


def address_of(url: str, option: str = "--dicomweb", example: str = "https://pacs.example/dicom-web") -> Address:
    """The server of an address, with the token of the environment variable MEDHARDEN_DICOMWEB_TOKEN.

    Args:
        url: of the service's root.
        option: what it was given as, for messages.
        example: of what is expected there, for messages.

    Raises:
        DataError: it is no address of a server, or one that can't be asked safely; or the environment names a token or
            an authority that can't be used.
    """
    expected = f"expected the root of a DICOMweb service, such as {option} {example}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise DataError(f"{option} is no address; {expected}") from None
    if parts.username is not None or parts.password is not None:
        raise DataError(
            f"{option} holds a user's name or password, which a command line shows to others; set {TOKEN} to a token"
        )
    if not host or not url.isascii() or not url.isprintable() or " " in url:
        raise DataError(f"{option} is no address; {expected}")
    if parts.query or parts.fragment:
        raise DataError(
            f"{option} holds a query (? or #): which series are retrieved says --data, as a table, or as a query "
            f"itself (dicomweb+{example}?...); {expected}"
        )
    loopback = _is_loopback(host)
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise DataError(
            f"{option} is neither https nor plain http to this machine itself (127.0.0.1), where images and token "
            f"could be read on the way; {expected}"
        )
    token = os.environ.get(TOKEN, "").strip()
    if token and not _TOKEN_SIGNS.fullmatch(token):
        raise DataError(f"{TOKEN} holds signs that no token has, such as blanks; expected the token alone")
    return Address(url.rstrip("/"), loopback, token, _authority() if parts.scheme == "https" else "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authority() -> str:
    """The certificates that the environment names, as other programs take them."""
    name = next((name for name in _AUTHORITIES if os.environ.get(name)), "")
    if not name:
        return ""
    place = Path(os.environ[name])
    try:
        if place.is_dir():
            return str(place)
        ssl.create_default_context(cafile=place)
    except OSError:  # which ssl.SSLError is
        raise DataError(
            f"{name} names no file of certificates that can be read; expected one in PEM form, of the authority that "
            "vouches for the DICOMweb server"
        ) from None
    return str(place)
