"""Frozen, strict protocols: every scientific choice of a run, and its digest."""

from medharden.protocol.loading import DEFAULT_PROTOCOL, load_protocol, parse_protocol, shipped_protocols
from medharden.protocol.schema import (
    Attack,
    Columns,
    Endpoints,
    Fusion,
    Hardening,
    Input,
    Intensity,
    Margin,
    ModelSpec,
    Protocol,
    Robustness,
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
    "Suite",
    "Task",
    "Teacher",
    "ThreatModel",
    "load_protocol",
    "parse_protocol",
    "shipped_protocols",
]
