"""The bytes of tensors: what they hold, and where they lie while they are on the CPU."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

__all__ = ["content", "memory", "pieces", "telling"]

_PIECE = 16_384  # bytes that are read again at a forward pass
_TOGETHER = 16  # tensors at most that share a piece
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def content(tensor: Tensor) -> tuple[torch.dtype, torch.Size, int]:
    """Type, shape and a checksum of the values in their order: against accidents, not against forgers."""
    if tensor.is_meta:
        return tensor.dtype, tensor.shape, 0
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tensor.shape, zlib.crc32(values.numpy().data)


def memory(tensor: Tensor) -> memoryview | None:
    """The tensor's own memory as integers; null where it is not on the CPU, has gaps, or holds nothing."""
    formats = [torch.contiguous_format]
    formats += {4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(tensor.dim(), [])
    width = _INTEGERS.get(tensor.element_size())
    dense = any(tensor.is_contiguous(memory_format=each) for each in formats)
    if tensor.device.type != "cpu" or not dense or width is None or tensor.numel() == 0:
        return None
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    return flat.view(width).numpy().data


def telling(values: memoryview) -> int:
    """Where to look for a write to all of a tensor: at a value that scaling or clipping would move."""
    integers = torch.frombuffer(values, dtype=_INTEGERS[values.itemsize])
    return int((integers.view(torch.float32) if values.itemsize == 4 else integers).abs().argmax())


def pieces(memories: list[memoryview]) -> list[list[tuple[memoryview, int]]]:
    """All of it in pieces of like size, with their checksums; small tensors share a piece."""
    made: list[list[tuple[memoryview, int]]] = []
    room = 0
    for each in memories:
        octets = each.cast("B")
        for start in range(0, len(octets), _PIECE):
            part = octets[start : start + _PIECE]
            if len(part) > room or len(made[-1]) == _TOGETHER:
                made.append([])
                room = _PIECE
            made[-1].append((part, zlib.crc32(part)))
            room -= len(part)
    return made
