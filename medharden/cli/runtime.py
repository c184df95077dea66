"""Where a command computes."""

from __future__ import annotations

import torch

from medharden import ranks
from medharden.cli.console import out
from medharden.errors import RunError

__all__ = ["device_of"]


def device_of(asked: str, *, float64: bool = False) -> str:
    """The device that was asked for; of `auto` CUDA, else MPS, else the CPU, said in one line.

    Args:
        asked: `auto`, or such as `cpu` or `cuda:1`.
        float64: whether it must know double precision, which MPS does not.

    Raises:
        RunError: there is no such device.
    """
    if asked == "cuda" or (asked == "auto" and torch.cuda.is_available()):
        asked = _own_cuda() or asked
    if asked != "auto":
        _require(asked)
        return asked
    if torch.cuda.is_available():
        device, what = "cuda", f"{torch.cuda.get_device_name()}, the first of {torch.cuda.device_count()}"
    elif torch.backends.mps.is_available() and not float64:
        device, what = "mps", "no CUDA device is here"
    else:
        threads = torch.get_num_threads()
        device, what = "cpu", f"{threads} thread{'s' if threads > 1 else ''}; no other device is here that this can use"
    _require(device)
    out.say(f"device: {device} ({what})")
    return device


def _own_cuda() -> str:
    """The CUDA device of this process among those started together on this machine; "" for one process.

    Raises:
        RunError: there are more processes than devices.
    """
    if ranks.launched() == 1:
        return ""
    devices = torch.cuda.device_count()
    if ranks.local() >= devices:
        raise RunError(
            f"more processes than CUDA devices on this machine, which has {devices}; expected at most one a device: "
            "start fewer (`--nproc-per-node`), or give --device cpu"
        )
    out.say(f"device: cuda, {devices} of them on this machine, one a process")
    return f"cuda:{ranks.local()}"


def _require(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RunError(
            f"there is no device {device!r} here: {str(error).splitlines()[0]}; `--device auto` takes what is here, "
            "`medharden doctor` lists it, and a GPU needs a torch that was built for it (https://pytorch.org)"
        ) from error
