"""Importing timm where the installed torchvision was built for another torch.

timm imports torchvision for a handful of helpers and none of its compiled operators. A CPU build of torch beside
the package index's torchvision (built for CUDA) can't load those operators, and the import fails on the first
whose schema is unknown. Declaring the schema, without an implementation, lets the import go through; a call of the
operator would still fail loudly.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

import torch

from medharden.monai_import import monai_module

__all__ = ["monai_networks", "timm_module"]

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []


def timm_module() -> ModuleType:
    """The timm package, imported.

    Raises:
        RuntimeError: torchvision fails to import for another reason.
    """
    for _ in range(5):
        try:
            return importlib.import_module("timm")
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(missing[1] + _BOXES)  # type: ignore[no-untyped-call]
            _declared.append(library)  # the declaration lives as long as this object
    return importlib.import_module("timm")


def monai_networks() -> ModuleType:
    """`monai.networks.nets`, whose networks of torchvision find it even where MONAI was imported before it could be."""
    timm_module()
    nets = monai_module("monai.networks.nets")
    fetched = monai_module("monai.networks.nets.torchvision_fc")
    if not isinstance(fetched.models, ModuleType):  # MONAI's stand-in for what failed to import
        importlib.reload(fetched)
    return nets
