"""Hardening: trains the robust branch, calibrates the fusion, checks that the clean path did not move."""

from medharden.hardening.clean import fine_tune
from medharden.hardening.run import harden
from medharden.hardening.stability import measure_stability

__all__ = ["fine_tune", "harden", "measure_stability"]
