"""What the fork server of `command.py` imports once, so that no command has to."""

from __future__ import annotations

import pandas
import torch
import torch._dynamo  # by the first optimiser

import medharden.cli.app
import medharden.cli.pipeline
import medharden.cli.verdicts
import medharden.reporting.rendering
from medharden.models.timm_import import monai_networks

__all__ = ["medharden", "pandas", "torch"]

monai_networks()
