"""What a run ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from medharden.record import Environment

__all__ = ["describe_environment"]

_PACKAGES = ("torch", "timm", "monai", "numpy", "scipy", "pydicom", "nibabel", "pillow", "safetensors")


def describe_environment(device: str, threads: int) -> Environment:
    """Versions, platform and device; no host or user name.

    Args:
        device: such as `cpu` or `cuda:0`.
        threads: CPU threads of one operation.
    """
    return Environment(
        medharden=_version("medharden"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        packages={name: _version(name) for name in _PACKAGES},
        device=device,
        threads=threads,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
