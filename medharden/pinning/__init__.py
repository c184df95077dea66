"""Pinning a network: it stays in eval mode and its state as it was, whatever is called on whatever part of it.

What Python lets one prevent is prevented, by a subclass put under each module's class (`parts`). What it does not is
noticed when the network is next asked (`seal`): a write to a tensor by its version counter, other memory behind it by
its address, and a write past both (`p.data`, NumPy) by one value of each tensor and, a piece at each forward pass, by
all of them. Tensors off the CPU would have to be fetched for that; of them, and of settings written past `setattr`,
it is noticed where the network is saved, moved, copied or attacked.
"""

from medharden.pinning.parts import check_pin, loose_copy, pin, pinned

__all__ = ["check_pin", "loose_copy", "pin", "pinned"]
