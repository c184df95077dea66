"""Every error medharden raises on purpose, in one tree.

    MedHardenError                 exit code 1
    ├── ProtocolError              a protocol that can't be read, or asks for what can't be
    ├── ModelError                 a model file that can't be loaded as what it is said to be
    ├── DataError                  cases that can't be used; carries every problem found
    ├── RunError                   a run directory that lacks a record, or holds another run's
    ├── KeyFileError               a key for signatures that can't be used
    ├── MissingPackageError        a package that is not installed, with the extra that brings it
    ├── OutputError                a place that can't be written to
    ├── PrivacyError               an output that would hold patient data, and was withheld
    ├── RangeError                 a tensor outside the range or shape a function takes
    ├── MachineError               memory, a disk or a device that gave out on the way
    └── HardeningError             a training run that can't be called a success
    Interrupted                    exit code 130; what was done is kept and can be resumed

The command line catches these two in one place. A message says what was expected, what was found and
what to do, and names cases by pseudonym only.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DataError",
    "HardeningError",
    "Interrupted",
    "KeyFileError",
    "MachineError",
    "MedHardenError",
    "MissingPackageError",
    "ModelError",
    "OutputError",
    "PrivacyError",
    "Problem",
    "ProtocolError",
    "RangeError",
    "RunError",
]


class MedHardenError(Exception):
    """The root of the tree; `exit_code` is what the command line leaves with."""

    exit_code = 1


class ProtocolError(MedHardenError):
    """A protocol that can't be read, or that asks for what can't be."""


class ModelError(MedHardenError):
    """A model file that can't be loaded as what it is said to be."""


@dataclass(frozen=True)
class Problem:
    """One case that can't be used.

    Attributes:
        case: the case's pseudonym, never its path.
        reason: what is wrong, without any text from the file's header.
        label: name of its class, or of its findings; null where the data don't tell.
        split: as the data give it, or "".
        repeated: the same case is used under another row: nothing is lost with this one.
        masked: names of the findings that are neither said to be there nor to be absent.
    """

    case: str
    reason: str
    label: str | tuple[str, ...] | None = None
    split: str = ""
    repeated: bool = False
    masked: tuple[str, ...] = ()


class DataError(MedHardenError):
    """Cases that can't be used; `problems` holds every one found, not only the first."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class RunError(MedHardenError):
    """A run directory that lacks a record, or holds another run's."""


class KeyFileError(MedHardenError):
    """A key for signatures that can't be used."""


class MissingPackageError(MedHardenError):
    """A package that is not installed; the message names the extra that brings it."""


class OutputError(MedHardenError):
    """A place that can't be written to."""


class PrivacyError(MedHardenError):
    """An output that would hold patient data; it was not written under its name."""


class RangeError(MedHardenError):
    """A tensor outside the range or shape that a function takes."""


class MachineError(MedHardenError):
    """Memory, a disk or a device that gave out on the way."""


class HardeningError(MedHardenError):
    """A training run that can't be called a success."""


class Interrupted(BaseException):
    """The user stopped the run; what was done is kept.

    It derives from `BaseException`, as `KeyboardInterrupt` does, so that no handler of ordinary errors
    swallows it.
    """

    exit_code = 130
