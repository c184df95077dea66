"""Fuzzing: files of others are changed at random, and whatever comes of reading them is an error of the project's own.

A failure is any exception that is not the project's, more than ten seconds, or more than 1 GiB for an input of less
than 1 MB. Hypothesis draws the changes, so that a failing input is shrunk to the fewest changes that still fail.
"""

from __future__ import annotations

import gzip
import io
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from medharden.errors import MedHardenError

__all__ = ["Edit", "Outcomes", "Target", "changed", "fuzz"]

SECONDS, MEMORY, SMALL = 10.0, 2**30, 2**20
INTERESTING = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 512, 1023, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1,
               2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)  # fmt: skip
WORDS = (
    b"", b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"-0", b"99999999999999999999", b'""', b"[]", b"{}", b"[[[[",
    b"}}}}", b'"a":', b",", b"&a ", b"*a", b"<<: ", b"!!python/name:os.system ", b"- ", b": ", b"\n", b"\t", b"\0",
    b"\xff\xfe", b"\xe2\x80\xae", b"\x1b[2J", b"2020-13-45", b"..", b"../../../etc/passwd", b"/", b"1.0", b"0x10",
    b"|", b";", b"\r\n", b"'", b'"', b"PASS", b"cos\nsystem\n", b"\x80\x02", b"IDAT", b"n+1\0", b"DICM", b"PAR1",
)  # fmt: skip

Edit = tuple[str, float, int]
"""What is done, where (a share of the length), and by how much or by which."""

EDITS = st.lists(
    st.tuples(
        st.sampled_from(("flip", "set", "number", "word", "cut", "drop", "repeat", "zero", "swap", "end")),
        st.floats(0.0, 1.0, allow_nan=False),
        st.integers(0, 2**20),
    ),
    min_size=1,
    max_size=6,
)


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: such as `protocol`.
        seeds: honest and hostile files to start from.
        read: takes the bytes and an empty folder; returns where they are good, raises the project's own error else.
        repair: makes checksums right again after a change, so that what lies behind them is reached; half of all inputs
            go through it.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], object]
    repair: Callable[[bytes], bytes] | None = None


@dataclass
class Outcomes:
    """What a target's inputs came to."""

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    largest: int = 0


def fuzz(target: Target, inputs: int, *, seed: int = 0, seconds: float | None = None) -> Outcomes:
    """Tries a target with so many inputs, or for so long.

    Raises:
        AssertionError, or what the target raised: at the first failure, shrunk; hypothesis prints the changes.
    """
    outcomes, began = Outcomes(), time.monotonic()

    @seeded(seed)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(st.integers(0, len(target.seeds) - 1), EDITS, st.booleans())
    def tried(which: int, edits: list[Edit], repaired: bool) -> None:
        if seconds is not None and time.monotonic() - began > seconds:
            return
        data = changed(target.seeds[which], edits, target.seeds)
        if repaired and target.repair is not None:
            data = target.repair(data)
        _try(target, data, outcomes)

    tried()
    return outcomes


def _try(target: Target, data: bytes, outcomes: Outcomes) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    before = _peak(anew=True)
    began = time.perf_counter()
    try:
        with _limited():
            target.read(data, folder)
        outcomes.accepted += 1
    except MedHardenError as error:
        outcomes.refused[type(error).__name__ if str(error).strip() else "an error that says nothing"] += 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    taken, grown = time.perf_counter() - began, _peak() - before
    outcomes.inputs += 1
    outcomes.slowest, outcomes.largest = max(outcomes.slowest, taken), max(outcomes.largest, grown)
    assert not outcomes.refused["an error that says nothing"]
    assert taken <= SECONDS, f"{taken:.1f} s for {len(data)} bytes"
    assert grown <= MEMORY or len(data) >= SMALL, f"{grown} bytes of memory for {len(data)} bytes"


@contextmanager
def _limited() -> Iterator[None]:
    """Stops what runs for twice as long as it may, so that a hang is a failure and no hang."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"ran for {2 * SECONDS:.0f} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def _peak(*, anew: bool = False) -> int:
    """Most bytes of memory that this process has held, since `anew` was last asked for where the system allows that."""
    if sys.platform == "linux":
        try:
            if anew:
                Path("/proc/self/clear_refs").write_text("5")
            line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        except OSError:
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- changes -----------------------------------------------------------------------------------------------------


def changed(data: bytes, edits: list[Edit], others: tuple[bytes, ...]) -> bytes:
    """A file after some changes, never longer than 1 MB."""
    for what, where, how in edits:
        data = _edited(data, what, where, how, others)[: SMALL - 1]
    return data


def _edited(data: bytes, what: str, where: float, how: int, others: tuple[bytes, ...]) -> bytes:
    place, length = int(where * len(data)), 1 + how % 64
    if what == "flip" and data:
        place = min(place, len(data) - 1)
        return data[:place] + bytes([data[place] ^ (1 << how % 8)]) + data[place + 1 :]
    if what == "set" and data:
        place = min(place, len(data) - 1)
        return data[:place] + bytes([how % 256]) + data[place + 1 :]
    if what == "number":
        width = (1, 2, 4, 8)[how % 4]
        order = "little" if how // 4 % 2 else "big"
        value = INTERESTING[how // 8 % len(INTERESTING)] % 256**width
        return data[:place] + value.to_bytes(width, order) + data[place + width :]
    if what == "word":
        word = WORDS[how % len(WORDS)]
        return data[:place] + word + data[place + (len(word) if how // len(WORDS) % 2 else 0) :]
    if what == "cut":
        return data[:place]
    if what == "drop":
        return data[:place] + data[place + length :]
    if what == "repeat":
        return data[:place] + data[place : place + length] * (1 + how // 64 % 64) + data[place + length :]
    if what == "zero":
        return data[:place] + bytes(length) + data[place + length :]
    if what == "swap":
        other = others[how % len(others)]
        return data[:place] + other[int(where * len(other)) :]
    return data + bytes(how % 256 for _ in range(length))


# --- checksums made right again ----------------------------------------------------------------------------------


def repaired_png(data: bytes) -> bytes:
    """The CRC of each chunk, as far as the lengths lead."""
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, place)
        if place + 12 + length > len(out):
            break
        struct.pack_into(">I", out, place + 8 + length, zlib.crc32(out[place + 4 : place + 8 + length]))
        place += 12 + length
    return bytes(out)


def compressed(data: bytes) -> bytes:
    """A gzip file around what was changed."""
    return gzip.compress(data, 1, mtime=0)


def zipped_npz(data: bytes) -> bytes:
    """An archive of two arrays, both of which are what was changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train_images.npy", "train_labels.npy"):
            archive.writestr(name, data)
    return out.getvalue()
