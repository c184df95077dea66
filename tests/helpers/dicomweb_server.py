"""A small DICOMweb server of this process, on the loopback address, that answers rightly or wrongly as a test asks."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

BOUNDARY = b"a-boundary-of-the-test"
SEARCHED = ("Modality", "BodyPartExamined", "StudyDescription", "PatientID", "PatientName", "AccessionNumber")


class Archive:
    """Series by UID, and what goes wrong.

    Attributes:
        series: UID of a series to the files of its instances, by their UIDs.
        wrong: called with the path of a request before it is answered; gives a status, or None.
        said: UID of a series to what a search of it shows, by attribute.
        page: how many instances, or series, one search gives.
        kinds: gives the type of content in the place of the right one.
        sent_to: where an answer of status 302 sends.
        retry_after: what an answer of another status than 200 says of that.
        slow: seconds between two halves of an answer.
        asked: how often each kind of request came; `retrieve UID` a series.
        tokens: what the requests said of themselves.
    """

    def __init__(self, root: Path) -> None:
        self.series: dict[str, dict[str, bytes]] = {}
        self.study: dict[str, str] = {}
        self.said: dict[str, dict[str, str]] = {}
        for path in sorted(root.rglob("*.dcm")):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            self.series.setdefault(header.SeriesInstanceUID, {})[header.SOPInstanceUID] = path.read_bytes()
            self.study[header.SeriesInstanceUID] = header.StudyInstanceUID
            named = {name: str(header.get(name, "")) for name in SEARCHED}
            self.said[header.SeriesInstanceUID] = {name: value for name, value in named.items() if value}
        self.wrong: Callable[[str], int | None] = lambda path: None
        self.parts: Callable[[str, list[bytes]], list[bytes]] = lambda uid, parts: parts
        self.found: bytes | None = None
        self.kinds: Callable[[str], str] = lambda kind: kind
        self.sent_to = "https://elsewhere.invalid/dicom-web"
        self.retry_after = ""
        self.slow = 0.0
        self.cut = 0
        self.page = 5
        self.asked: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.url = ""

    def matching(self, parts: list[str], query: dict[str, str]) -> list[dict[str, Any]]:
        """What a search finds, page by page."""
        named = {k: v for k, v in query.items() if k not in ("limit", "offset", "includefield")}
        wanted = {keyword_for_tag(k) if k.isdigit() else k: v for k, v in named.items()}
        if len(parts) == 3:
            wanted["StudyInstanceUID"] = parts[1]
        shown = [{"StudyInstanceUID": self.study[u], "SeriesInstanceUID": u, **self.said[u]} for u in self.series]
        found = [one for one in shown if all(one.get(k) == v for k, v in wanted.items())]
        if parts == ["studies"]:
            found = list({one["StudyInstanceUID"]: one for one in found}.values())
        first, most = int(query.get("offset", 0)), min(int(query.get("limit", 10**6)), self.page)
        return [as_json(one) for one in found[first : first + most]]


@contextmanager
def serving(root: Path, tls: ssl.SSLContext | None = None) -> Iterator[Archive]:
    """An archive of the files below a folder; with a context under HTTPS."""
    archive = Archive(root)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            archive.tokens.add(self.headers.get("Authorization", ""))
            _, prefix, *parts = urlsplit(self.path).path.split("/")
            status = archive.wrong(self.path)
            if status is not None:
                self.send_response(status)
                self.send_header("Location", archive.sent_to)
                if archive.retry_after:
                    self.send_header("Retry-After", archive.retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif prefix != "dicom-web":
                self.send_error(404)
            else:
                self.answer(parts, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()})

        def answer(self, parts: list[str], query: dict[str, str]) -> None:
            if parts in (["series"], ["studies"]) or (len(parts) == 3 and parts[2] == "series"):
                archive.asked["search"] += 1
                self.send_found(archive.matching(parts, query))
            elif parts[-1] == "instances":
                archive.asked["instances"] += 1
                first = int(query.get("offset", 0))
                named = list(archive.series[parts[3]])[first : first + archive.page]
                self.send_found([{"00080018": said(one)} for one in named])
            else:
                archive.asked[f"retrieve {parts[3]}"] += 1
                assert "transfer-syntax=*" in self.headers["Accept"]
                self.send_parts(archive.parts(parts[3], list(archive.series[parts[3]].values())))

        def send_found(self, found: list[dict[str, Any]]) -> None:
            body = json.dumps(found).encode() if archive.found is None else archive.found
            self.send_body(body, "application/dicom+json", 200 if found else 204)

        def send_parts(self, parts: list[bytes]) -> None:
            head = b"\r\n--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"
            body = b"".join(head + part for part in parts)[2:] + b"\r\n--" + BOUNDARY + b"--"
            kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
            self.send_body(body, kind)

        def send_body(self, body: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", archive.kinds(kind))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, archive.cut = archive.cut if kind.startswith("multipart") else 0, max(0, archive.cut - 1)
            half = len(body) // 2
            self.wfile.write(body[:half])
            time.sleep(archive.slow)
            self.wfile.write(b"" if cut else body[half:])

    server = opened(Handler, tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    archive.url = f"{server.scheme}://127.0.0.1:{server.server_port}/dicom-web"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Opened(ThreadingHTTPServer):
    daemon_threads = True
    scheme = "http"

    def handle_error(self, *_: Any) -> None:
        """A client that goes away, as one does whom the certificate does not convince, is no failure of the test."""


def opened(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None) -> Opened:
    server = Opened(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket, server.scheme = tls.wrap_socket(server.socket, server_side=True), "https"
    return server


def as_json(found: dict[str, str]) -> dict[str, Any]:
    """A row of a search's answer in DICOM JSON."""
    shown = {}
    for keyword, value in found.items():
        vr = dictionary_VR(keyword)
        element = {"Alphabetic": value} if vr == "PN" else value
        shown[f"{tag_for_keyword(keyword):08X}"] = {"vr": vr, "Value": [element]}
    return shown


def said(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]}
