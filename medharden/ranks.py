"""Several processes that do one job, as `torchrun` or `accelerate launch` start them: who each is, what they tell.

Each runs the same code on the same files, and takes its share of the cases; the first alone writes. They tell each
other tensors and JSON, never a program. One process alone passes through all of this unchanged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from medharden.errors import RunError

__all__ = [
    "agree",
    "count",
    "first",
    "first_alone",
    "from_first",
    "heard",
    "in_order",
    "joined",
    "launched",
    "local",
    "own",
    "rank",
]
__all__ += ["require_enough", "share", "told", "total", "wait"]

_PATIENCE = timedelta(days=1)  # the first may decode for hours while the others wait


def launched() -> int:
    """How many processes a launcher says that there are; 1 where none says so."""
    return max(1, _number("WORLD_SIZE", 1))


def beside() -> bool:
    """Whether the launcher says that another of several processes is the first."""
    return launched() > 1 and _number("RANK", 0) != 0


def local() -> int:
    """Which of this machine's processes this is, by the launcher."""
    return _number("LOCAL_RANK", 0)


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Joins the processes that were launched together, until the end.

    Args:
        device: where this one computes; gradients on CUDA are added up by NCCL, all else by gloo.

    Raises:
        RunError: they don't find each other.
    """
    if launched() == 1 or distributed.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.device(device).type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"the {launched()} processes that were started together don't find each other ({type(error).__name__}); "
            "expected MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE as torchrun sets them"
        ) from None
    try:
        yield
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _several() else 1


def rank() -> int:
    """Which one this is, from 0."""
    return distributed.get_rank() if _several() else 0


def first() -> bool:
    """Whether this one writes."""
    return rank() == 0


def require_enough(cases: int, what: str) -> None:
    """Refuses more processes than there are cases to deal.

    Raises:
        RunError: with both numbers.
    """
    if count() > cases:
        raise RunError(f"{count()} processes for {cases} {what}; expected at most one a case: start fewer")


def share(cases: int) -> slice:
    """This one's part of so many cases in a row, as even as can be."""
    bounds = [cases * each // count() for each in (rank(), rank() + 1)]
    return slice(*bounds)


def own(cases: int) -> Tensor:
    """(n,) which of so many cases are this one's, every so many: cases in a row may be alike."""
    return torch.arange(cases)[rank() :: count()]


def total(values: Tensor) -> Tensor:
    """Adds up a tensor over all processes, in place; each gets the same bits."""
    if _several():
        with _together():
            distributed.all_reduce(values)
    return values


def from_first(values: Tensor) -> Tensor:
    """Puts what the first has into a tensor of all, in place."""
    if _several():
        with _together():
            distributed.broadcast(values, 0)
    return values


def in_order(values: Tensor, places: Tensor) -> Tensor:
    """(N, ...) what all processes have, each with its places among all; on the device of the values.

    Args:
        values: (n, ...) of this one.
        places: (n,) int64, of this one.
    """
    if not _several():
        return values
    shown = values.detach().cpu().contiguous()
    sizes = [int(n) for n in heard(len(shown))]
    every = torch.cat(_gathered(shown, sizes))
    found = torch.empty_like(every)
    found[torch.cat(_gathered(places.cpu().to(torch.int64), sizes))] = every
    return found.to(values.device)


def told(value: Any) -> Any:
    """What the first says; plain JSON values."""
    return heard(value)[0]


def heard(value: Any) -> list[Any]:
    """What each says, in order; plain JSON values."""
    if not _several():
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    with _together():
        distributed.all_gather(lengths, torch.tensor([len(data)]))
    return [json.loads(part.numpy().tobytes()) for part in _gathered(data, [int(n) for n in lengths])]


def agree(what: str, value: Any) -> None:
    """Holds what all processes have against each other.

    Args:
        what: it is, in words.
        value: plain JSON values.

    Raises:
        RunError: they differ, in every process.
    """
    said = heard(value)
    if any(each != said[0] for each in said):
        others = [n for n, each in enumerate(said) if each != said[0]]
        raise RunError(
            f"process {others[0]} of {count()} differs from the first in {what}; expected the same files, the same "
            "options and the same installation for all"
        )


def wait() -> None:
    """Until all have come here."""
    heard(None)


@contextmanager
def first_alone() -> Iterator[None]:
    """The first runs the body before the others do, who find what it left."""
    if not first():
        wait()
    yield
    if first():
        wait()


def _gathered(values: Tensor, sizes: list[int]) -> list[Tensor]:
    """Each one's (n, ...) CPU tensor; they are sent at one length, since gloo wants that."""
    padded = values.new_zeros((max(sizes), *values.shape[1:]))
    padded[: len(values)] = values
    found = [torch.zeros_like(padded) for _ in sizes]
    # gloo knows no bool
    raw = padded.view(torch.uint8) if padded.dtype is torch.bool else padded
    with _together():
        distributed.all_gather([f.view(torch.uint8) if f.dtype is torch.bool else f for f in found], raw)
    return [each[:size] for each, size in zip(found, sizes, strict=True)]


@contextmanager
def _together() -> Iterator[None]:
    """Says in our words that another process is gone; what it said itself is above."""
    try:
        yield
    except RuntimeError as error:
        raise RunError(
            f"another of the {count()} processes ended ({type(error).__name__}); see what it said. What was finished "
            "is kept: start all of them again, or fewer, to go on"
        ) from None


def _several() -> bool:
    return bool(distributed.is_available() and distributed.is_initialized())


def _number(name: str, otherwise: int) -> int:
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        return otherwise
