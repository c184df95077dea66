"""Values on their way between host and device, without either waiting for the other.

A copy that the host waits for stops a GPU: what was queued must be done first. So what is sent is pinned and not waited
for, and what is fetched is waited for when it is needed, some steps later, and no longer than until it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["EVENTS", "Fetched", "held", "sent", "settled"]

EVENTS: dict[str, Callable[[], Any]] = {"cuda": torch.cuda.Event, "xpu": torch.xpu.Event}
"""By type of device, what tells when it has come to a place in its queue: `record()`, `synchronize()`."""

_PINS = ("cuda",)
_WORTH_PINNING = 2**16  # bytes; fewer are taken over by the driver before the call returns


def held(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on the host, in pages that the device reads by itself where it can; to be called ahead, in a thread."""
    if torch.device(device).type not in _PINS or values.numel() * values.element_size() < _WORTH_PINNING:
        return values
    return values if values.is_pinned() else values.pin_memory()


def sent(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on the device; where they come from the host neither waits, and they are not to be written to."""
    device = torch.device(device)
    if values.device.type == device.type or device.type not in EVENTS:
        return values.to(device)
    return held(values, device).to(device, non_blocking=True)


def settled(device: torch.device | str) -> None:
    """Until the device has done all that it was given: for clocks, and for nothing else."""
    make = EVENTS.get(torch.device(device).type)
    if make is not None:
        event = make()
        event.record()
        event.synchronize()


class Fetched:
    """Values of a device that are on their way to the host."""

    def __init__(self, values: Tensor) -> None:
        """Has the copy queued, behind all that the device was given by now."""
        make = EVENTS.get(values.device.type)
        if make is None:  # of the host already, or of a device that can't be asked how far it is
            self._values, self._there = values.detach().cpu(), None
            return
        pinned = values.device.type in _PINS
        self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=pinned)
        self._values.copy_(values.detach(), non_blocking=True)
        self._there = make()
        self._there.record()

    def get(self) -> Tensor:
        """The values, once they are there; in whatever thread."""
        if self._there is not None:
            self._there.synchronize()
        return self._values
