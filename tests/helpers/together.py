"""Processes that do one job together, each started as a launcher would start it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from command import environment

__all__ = ["apart", "ended", "started"]


def started(words: Sequence[object], count: int, cwd: Path) -> list[subprocess.Popen[str]]:
    """Starts so many processes of one Python command that find each other on this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(count))
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=cwd,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """What each came to."""
    said = [process.communicate(timeout=600) for process in processes]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *streams)
        for process, streams in zip(processes, said, strict=True)
    ]


def apart(first: Path, second: Path) -> float:
    """How far the weights of two runs are apart at most, tensor by tensor, relative to their norms."""
    from safetensors.torch import load_file

    one, other = (load_file(run / "hardened.safetensors") for run in (first, second))
    assert one.keys() == other.keys()
    return max(
        float((one[n] - other[n]).norm() / one[n].norm().clamp_min(1e-9)) for n in one if one[n].is_floating_point()
    )
