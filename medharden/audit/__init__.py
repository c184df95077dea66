"""Canonical JSON, digests, atomic files, record and case-table reading and writing, and the hash-chained log."""

from medharden.audit.environment import describe_environment, rendering_stack
from medharden.audit.files import digest_bytes, digest_file, stream_atomic, write_atomic
from medharden.audit.history import Lock, OpenLook, RunHistory, read_history
from medharden.audit.ledger import Ledger, Look, look_at, read_ledger, record_look
from medharden.audit.locking import exclusive
from medharden.audit.log import AuditLog, audited, read_log, verify_log
from medharden.audit.records import read_record, write_record
from medharden.audit.runfiles import RunFiles
from medharden.audit.screening import guarded
from medharden.audit.sealing import open_sealed, open_sealed_stream, write_sealed
from medharden.audit.tables import read_cases, write_cases
from medharden.canonical import canonical_json

__all__ = [
    "AuditLog",
    "Ledger",
    "Lock",
    "Look",
    "OpenLook",
    "RunFiles",
    "RunHistory",
    "audited",
    "canonical_json",
    "describe_environment",
    "digest_bytes",
    "digest_file",
    "exclusive",
    "guarded",
    "look_at",
    "open_sealed",
    "open_sealed_stream",
    "read_cases",
    "read_history",
    "read_ledger",
    "read_log",
    "read_record",
    "record_look",
    "rendering_stack",
    "stream_atomic",
    "verify_log",
    "write_atomic",
    "write_cases",
    "write_record",
    "write_sealed",
]
