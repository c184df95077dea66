"""How many cases a pass takes, so that what a gradient keeps of them fits into memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medharden.record import Finding
from medharden.rows import Cases
from medharden.sizes import shown_bytes

__all__ = ["bytes_a_case", "fitting_batch"]

_BUDGET = 2 * 2**30  # on a processor, whatever else runs there; batches change results by rounding, so it is one number
_SHARE = 0.5  # of a CUDA device's memory


def fitting_batch(
    view: nn.Module, inputs: Cases, batch_size: int, device: str, budget: int | None = None
) -> tuple[int, tuple[Finding, ...]]:
    """The batch size that was asked for, or the largest that fits, which is a finding.

    Args:
        view: (N, C, *spatial) to logits, on the device: the largest of the models under attack.
        inputs: (N, C, *spatial) on the device, or read onto it; the first case is measured.
        batch_size: cases a pass at most.
        device: such as `cpu` or `cuda:0`.
        budget: bytes that a gradient's pass may keep; null takes 2 GiB, on CUDA half of the device's memory.
    """
    if budget is None:
        cuda = torch.device(device).type == "cuda"
        budget = int(_SHARE * torch.cuda.get_device_properties(device).total_memory) if cuda else _BUDGET
    each = bytes_a_case(view, inputs[:1])
    fits = max(1, min(batch_size, budget // max(1, each)))
    if fits == batch_size:
        return batch_size, ()
    message = (
        f"A gradient keeps about {shown_bytes(each)} of each case, {shown_bytes(each * batch_size)} of {batch_size}: "
        f"passes of {fits} were taken, within {shown_bytes(budget)}."
    )
    return fits, (Finding("evaluation.smaller_batches", "info", message),)


def bytes_a_case(view: nn.Module, case: Tensor) -> int:
    """What a pass with a gradient of its input keeps of one case, in bytes; weights don't count.

    Tensors that share memory are counted once each, so it is rather too much.

    Args:
        view: takes (N, C, *spatial) within [0, 1].
        case: (1, C, *spatial).
    """
    kept = []
    for cases in (1, 2):
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        points = case.expand(cases, *case.shape[1:]).clone().requires_grad_()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            view(points)
        kept.append(sum(sizes))
    return max(0, kept[1] - kept[0])
