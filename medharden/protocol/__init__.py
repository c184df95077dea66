"""Frozen, strict protocols: every scientific choice of a run, and its digest."""

from medharden.protocol.attacking import Attack, Precision, Suite, ThreatModel
from medharden.protocol.changing import ChangeControl, Modification
from medharden.protocol.deciding import CO_PRIMARY, Bound, ClassFloor, Endpoints, Margin, Robustness, Subgroups
from medharden.protocol.further import OperatingPoint, WorstGroup
from medharden.protocol.imaging import PILLOW_MODES, Channel, Frames, Input, Intensity, Step, Volume
from medharden.protocol.loading import (
    DEFAULT_PROTOCOL,
    content_digest,
    load_protocol,
    parse_content,
    parse_protocol,
    protocol_yaml,
    read_content,
    shipped_protocols,
)
from medharden.protocol.modelling import ModelSpec
from medharden.protocol.reported import TESTED, Hazard, Signatory, StatedThreat, Statements, Tester, ThreatName
from medharden.protocol.schema import (
    Fusion,
    Hardening,
    Patients,
    Protocol,
    Referred,
    Reviewed,
    Splits,
    Teacher,
)
from medharden.protocol.shifting import CORRUPTIONS, Corruption, Shift
from medharden.protocol.sourcing import Cases, Columns
from medharden.protocol.tasking import Task

__all__ = [
    "CORRUPTIONS",
    "CO_PRIMARY",
    "DEFAULT_PROTOCOL",
    "PILLOW_MODES",
    "TESTED",
    "Attack",
    "Bound",
    "Cases",
    "ChangeControl",
    "Channel",
    "ClassFloor",
    "Columns",
    "Corruption",
    "Endpoints",
    "Frames",
    "Fusion",
    "Hardening",
    "Hazard",
    "Input",
    "Intensity",
    "Margin",
    "ModelSpec",
    "Modification",
    "OperatingPoint",
    "Patients",
    "Precision",
    "Protocol",
    "Referred",
    "Reviewed",
    "Robustness",
    "Shift",
    "Signatory",
    "Splits",
    "StatedThreat",
    "Statements",
    "Step",
    "Subgroups",
    "Suite",
    "Task",
    "Teacher",
    "Tester",
    "ThreatModel",
    "ThreatName",
    "Volume",
    "WorstGroup",
    "content_digest",
    "load_protocol",
    "parse_content",
    "parse_protocol",
    "protocol_yaml",
    "read_content",
    "shipped_protocols",
]
