"""A process that decodes files for another: told paths on standard input, answering with cases on standard output.

It is a program of its own and no fork: the parent holds threads of torch and perhaps a GPU, and its main script may not
be one that can be imported again. Its standard input ends when the parent does, in whatever way, and so does it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from medharden.data.formats.channels import read_parts
from medharden.data.formats.image import quiet_readers
from medharden.data.formats.limits import Room
from medharden.data.store.made import Made, made_of, single_threaded
from medharden.data.store.wire import Channel, heard, said_of
from medharden.errors import DataError
from medharden.protocol import Input

__all__ = ["Decoder", "main"]

Parts = Sequence[Sequence[Path]]
"""The files of each channel of a case."""

_START = "from medharden.data.store.worker import main; main()"


class _AskedRoom(Room):
    """A room whose memory is the parent's: each share is asked for, and waited for."""

    def __init__(self, channel: Channel, limits: dict[str, int]) -> None:
        super().__init__(**limits)
        self._channel = channel

    def _take(self, need: int) -> None:
        self._channel.send({"need": need})
        self._channel.receive()


def main() -> None:
    """Decodes one file after the other until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent that is interrupted, and says what is to be done
    channel = Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)  # what a library prints is no answer
    single_threaded()
    with quiet_readers(), ThreadPoolExecutor(max_workers=1) as thread:
        while True:
            try:
                task, _ = channel.receive()
            except EOFError:
                return
            done = thread.submit(_decoded, task, channel)
            # an error that no reader foresaw gives its type alone, since its text may quote the header
            unforeseen = done.exception()
            answer = done.result() if unforeseen is None else f"can't be read: {type(unforeseen).__name__}"
            channel.send(*said_of(answer))


def _decoded(task: dict[str, Any], channel: Channel) -> Made | str:
    """The case, or why it can't be used."""
    spec = Input.model_validate_json(task["spec"]).at_frame(int(task["frame"]))
    try:
        with _AskedRoom(channel, task["room"]).file() as hold:
            parts = [[Path(path) for path in files] for files in task["parts"]]
            return made_of(read_parts(parts, spec, hold), spec)
    except DataError as error:
        return str(error)


class Decoder:
    """The parent's end of one such process; used by one thread."""

    def __init__(self, spec: Input, room: Room) -> None:
        """Prepares; the process starts with the first file.

        Args:
            spec: what is made of the files.
            room: the memory that all readers share.
        """
        self._spec, self._room = spec, room
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, parts: Parts, frame: int = 0) -> Made | str:
        """The case, or why it can't be used; `frame` is which one of its file it is, from 1, or 0.

        A decoder's defect that ends the process ends no more than that: the file is tried again in a process of its
        own, and where that ends too, the file is one that can't be read.
        """
        try:
            return self._answer(parts, frame)
        except (EOFError, OSError, KeyError, TypeError, ValueError):
            self.close()
        try:
            return self._answer(parts, frame)
        except (EOFError, OSError, KeyError, TypeError, ValueError):
            self.close()
            return "can't be read: the process that decoded it ended without a word, twice"

    def _answer(self, parts: Parts, frame: int) -> Made | str:
        process = self._process or self._started()
        assert process.stdin is not None and process.stdout is not None, "made with pipes"  # noqa: S101, PT018
        channel = Channel(process.stdout, process.stdin)  # type: ignore[arg-type]
        room = self._room.limits
        files = [[str(path.absolute()) for path in part] for part in parts]
        channel.send({"parts": files, "frame": frame, "spec": self._spec.model_dump_json(), "room": room})
        held = 0
        try:
            while True:
                said, body = channel.receive()
                if "need" not in said:
                    return heard(said, body)
                need = int(said["need"])
                self._room._take(need)
                held += need
                channel.send({})
        finally:
            self._room._take(-held)  # what a process that ended had not given back

    def _started(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(  # noqa: S603 - this program
            [sys.executable, "-P", "-c", _START],  # -P: nothing is imported from the folder that it is called in
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a library's warnings quote headers
            env=_environment(),
        )
        return self._process

    def close(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    _close(stream)
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    """This process's, with its import path, and without its secrets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEDHARDEN_")}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:
        return
