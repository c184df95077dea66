"""The composite as a MONAI bundle: configurations, weights and a graph that MONAI runs."""

from __future__ import annotations

from collections.abc import Mapping

from medharden.exporting.graph import Deployed
from medharden.models import HardenedClassifier

__all__ = ["bundle_files"]


def bundle_files(graph: Deployed, model: HardenedClassifier, metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Stub."""
    return {"/models/deployed.ts.pt": b""}
