"""What a run ran on."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medharden._version import __version__
from medharden.record import Environment

__all__ = ["describe_environment", "rendering_stack"]

_SOURCES = (".py", ".j2", ".css", ".typ")
_RENDERERS = ("jinja2", "junitparser", "matplotlib", "pillow", "typst")
_PACKAGES = ("torch", "timm", "monai", "numpy", "scipy", "pydicom", "nibabel", "pillow", "safetensors")


def describe_environment(device: str, threads: int, *, processes: int = 1, precision: str = "fp32") -> Environment:
    """Versions, platform and device; no host or user name.

    Args:
        device: such as `cpu` or `cuda:0`.
        threads: CPU threads of one operation.
        processes: that shared the work.
        precision: in which layers were trained.
    """
    return Environment(
        medharden=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        packages={name: _version(name) for name in _PACKAGES},
        device=device,
        threads=threads,
        code=_code(),
        processes=processes,
        precision=precision,
    )


def rendering_stack() -> dict[str, str]:
    """What the bytes of a report depend on beside its records: this code, and the libraries that render."""
    stack = {name: _version(name) for name in _RENDERERS}
    return stack | {"medharden": __version__, "code": _code(), "python": platform.python_version()}


def _code() -> str:
    """SHA-256 over names and content of the package's source files, in the order of their names."""
    package = Path(__file__).resolve().parent.parent
    total = hashlib.sha256()
    sources = [path for path in package.rglob("*") if path.suffix in _SOURCES and "protocols" not in path.parts]
    for path in sorted(sources, key=lambda p: p.relative_to(package).as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(package).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
