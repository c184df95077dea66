"""A small DICOMweb server of this process, on the loopback address, that answers rightly or wrongly as a test asks."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom

BOUNDARY = b"a-boundary-of-the-test"


class Archive:
    """Series by UID, and what goes wrong.

    Attributes:
        series: UID of a series to the files of its instances, by their UIDs.
        wrong: called with the path of a request before it is answered; gives a status, or None.
        page: how many instances one search gives.
        asked: how often each kind of request came; `retrieve UID` a series.
        tokens: what the requests said of themselves.
    """

    def __init__(self, root: Path) -> None:
        self.series: dict[str, dict[str, bytes]] = {}
        self.study: dict[str, str] = {}
        for path in sorted(root.rglob("*.dcm")):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            self.series.setdefault(header.SeriesInstanceUID, {})[header.SOPInstanceUID] = path.read_bytes()
            self.study[header.SeriesInstanceUID] = header.StudyInstanceUID
        self.wrong: Callable[[str], int | None] = lambda path: None
        self.parts: Callable[[str, list[bytes]], list[bytes]] = lambda uid, parts: parts
        self.found: bytes | None = None
        self.cut = 0
        self.page = 5
        self.asked: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.url = ""


@contextmanager
def serving(root: Path) -> Iterator[Archive]:
    """An archive of the files below a folder."""
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
                self.send_header("Location", "https://elsewhere.invalid/dicom-web")
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif prefix != "dicom-web":
                self.send_error(404)
            else:
                self.answer(parts, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()})

        def answer(self, parts: list[str], query: dict[str, str]) -> None:
            if parts == ["series"]:
                archive.asked["search"] += 1
                uid = query["SeriesInstanceUID"]
                known = {uid: archive.study[uid]} if uid in archive.series else {}
                self.send_found([{"0020000D": said(study), "0020000E": said(one)} for one, study in known.items()])
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
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut, archive.cut = archive.cut if kind.startswith("multipart") else 0, max(0, archive.cut - 1)
            self.wfile.write(body[: len(body) // 2] if cut else body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]}
