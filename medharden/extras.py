"""What a command needs and the installation may lack: medharden without an extra decides, signs and verifies alone."""

from __future__ import annotations

import traceback

from medharden.errors import MissingPackageError

__all__ = ["EXTRAS", "missing"]

_REPORT = frozenset(("PIL", "jinja2", "junitparser", "markupsafe", "matplotlib", "safetensors", "typst"))
_HARDEN = frozenset(
    ("blake3", "gdcm", "imagehash", "monai", "nibabel", "pydicom", "simplejpeg", "timm", "torch", "torchvision")
)
_EXPORT = frozenset(("google", "onnx", "onnx_ir", "onnxruntime", "onnxscript"))  # google.protobuf comes with onnx
_DICOMWEB = frozenset(("dicomweb_client", "requests"))
_JPEG12 = frozenset(("imagecodecs",))
_ONNX = frozenset(("onnx2torch",))
_TRACK = frozenset(("mlflow", "tensorboard"))
_TRANSFORMERS = frozenset(("transformers",))
EXTRAS = {
    "report": _REPORT,
    "harden": _REPORT | _HARDEN,
    "export": _REPORT | _HARDEN | _EXPORT,
    "dicomweb": _REPORT | _HARDEN | _DICOMWEB,
    "jpeg12": _JPEG12,
    "onnx": _ONNX,
    "track": _TRACK,
    "transformers": _TRANSFORMERS,
}
"""The modules that each extra brings, by the names under which they are imported."""


def missing(error: ModuleNotFoundError) -> MissingPackageError | None:
    """What to tell the user; null where the module is none that an extra brings, which is a defect.

    Args:
        error: as it was caught: where it was raised tells a report from all else.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS["export"] | _DICOMWEB | _ONNX | _TRACK | _TRANSFORMERS:
        return None
    rooms = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    reports = module in EXTRAS["report"] and any(room.startswith("medharden.reporting.") for room in rooms)
    others = (("onnx", _ONNX), ("track", _TRACK), ("transformers", _TRANSFORMERS))
    owners = (("export", _EXPORT), ("dicomweb", _DICOMWEB), *others)
    of_one = next((name for name, own in owners if module in own), "harden")
    extra = "report" if reports else of_one
    return MissingPackageError(
        f"this needs {module}, which is not installed: medharden was installed without its extra `{extra}`. Install it "
        f"again from where you had it, with the extra: pip install '.[{extra}]' in its source, or 'FILE.whl[{extra}]'"
    )
