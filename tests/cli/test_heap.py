"""Memory of a command's threads: one heap, so that what one thread freed another uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAPS = """
import ctypes, sys, tempfile, threading
sys.argv = ["medharden", "--version"]
if {command}:
    from medharden.cli import main
    try:
        main()
    except SystemExit:
        pass
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fdopen.restype = ctypes.c_void_p
ready = threading.Barrier(5)

def take():
    ready.wait()
    libc.malloc(ctypes.c_size_t(10000))
    ready.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
[thread.start() for thread in threads]
[ready.wait() for _ in range(2)]
with tempfile.TemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fdopen(file.fileno(), b"w"))
    libc.malloc_info(0, stream)
    libc.fflush(stream)
    file.seek(0)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_threads_of_a_command_take_memory_from_one_heap() -> None:
    def heaps(command: bool) -> int:
        words = [sys.executable, "-c", HEAPS.format(command=command)]
        return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])

    assert heaps(command=False) > 1  # the counter counts
    assert heaps(command=True) == 1
