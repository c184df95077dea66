"""What a machine ran out of: memory, room on a disk, a device that failed. Known by the error, told with what to do.

Nothing here is imported that might not be there: torch's errors are known by their names.
"""

from __future__ import annotations

import errno
import os

from medharden.errors import MachineError

__all__ = ["no_memory", "shortage"]

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "Unable to allocate")
_DEVICE_WORDS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "MPS backend", "HIP error")
_SYSTEM = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space on the disk that it writes to"),
    errno.EROFS: "a disk that can be written to",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO), "a disk that reads and writes"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "leave to open more files (`ulimit -n`)"),
}


def no_memory(error: BaseException) -> str:
    """The first line of an error that says that memory gave out; "" for any other.

    Args:
        error: of Python, NumPy or torch, on any device. Such a line holds numbers and no data.
    """
    if isinstance(error, OSError):  # whose text names a file
        return os.strerror(error.errno) if error.errno == errno.ENOMEM else ""
    said = str(error).splitlines()[0] if str(error) else ""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return said or "no memory is left"
    return said if isinstance(error, RuntimeError) and any(word in said for word in _MEMORY_WORDS) else ""


def shortage(error: BaseException) -> MachineError | None:
    """What to tell of an error that is the machine's; null for one that is a defect.

    Args:
        error: as it was caught, with those that it was raised from.
    """
    seen: BaseException | None = error
    while seen is not None:
        told = _told(seen)
        if told:
            return MachineError(f"{told}. What was finished is kept: the same command goes on from there")
        seen = seen.__cause__ or seen.__context__
    return None


def _told(error: BaseException) -> str:
    memory = no_memory(error)
    if memory:
        return (
            f"out of memory: {memory}; expected room for a pass of as many cases: free memory that other programs "
            "hold, or give a smaller --batch-size, fewer --workers or a device with more memory"
        )
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return f"the system answered: {os.strerror(error.errno)}; expected {_SYSTEM[error.errno]}"
    failed = type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _DEVICE_WORDS)
    )
    if failed:
        return f"the device failed: {str(error).splitlines()[0]}; expected one that answers (`medharden doctor`)"
    return ""
