"""Frozen, strict protocols: every scientific choice of a run, and its digest."""

from medharden.protocol.deciding import Endpoints, Margin, Robustness, Subgroups
from medharden.protocol.loading import DEFAULT_PROTOCOL, load_protocol, parse_protocol, shipped_protocols
from medharden.protocol.schema import (
    Attack,
    Columns,
    Fusion,
    Hardening,
    Input,
    Intensity,
    ModelSpec,
    Protocol,
    Splits,
    Suite,
    Task,
    Teacher,
    ThreatModel,
)

__all__ = [
    "DEFAULT_PROTOCOL",
    "Attack",
    "Columns",
    "Endpoints",
    "Fusion",
    "Hardening",
    "Input",
    "Intensity",
    "Margin",
    "ModelSpec",
    "Protocol",
    "Robustness",
    "Splits",
    "Subgroups",
    "Suite",
    "Task",
    "Teacher",
    "ThreatModel",
    "load_protocol",
    "parse_protocol",
    "shipped_protocols",
]
