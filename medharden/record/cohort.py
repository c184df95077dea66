"""Records of the data and the model that a run was given."""

from __future__ import annotations

from dataclasses import dataclass, field

from medharden.record.common import Finding

__all__ = [
    "MASKED",
    "AlikePair",
    "CaseRecord",
    "CohortRecord",
    "ExcludedCase",
    "Label",
    "ModelRecord",
    "finding_states",
    "present",
]

Label = int | tuple[int, ...]
"""Index of a case's class; of a multi-label task the rising indices of its findings, `()` for none."""


def present(label: Label) -> tuple[int, ...]:
    """The classes or findings that a label says are there."""
    return (label,) if isinstance(label, int) else label


MASKED = -1
"""What stands in a row of findings for one that nobody knows, beside 1 (there) and 0 (absent)."""


def finding_states(label: Label, masked: tuple[int, ...], findings: int) -> list[int]:
    """(L,) one number a finding of a case: 1 there, 0 absent, `MASKED` unknown."""
    states, held = [0] * findings, present(label)
    for k in held:
        states[k] = 1
    for k in masked:
        states[k] = MASKED
    return states


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One case of a cohort.

    Attributes:
        case, patient: pseudonyms (keyed HMAC); a patient's is of one form of the identifier, however it is written.
        split: `train`, `val` or `test`.
        label: index into the cohort's classes; of a multi-label task, indices of the findings that are there.
        pixels: HMAC, under the pseudonym key, of the decoded stored pixels with shape and data type.
        masked: of a multi-label task, indices of the findings that nobody knows of this case: they are left out of its
            training, of attacks on it and of every statistic.
    """

    case: str
    patient: str
    split: str
    label: Label
    pixels: str
    masked: tuple[int, ...] = ()


@dataclass(frozen=True)
class AlikePair:
    """Two cases that look alike: pseudonyms, and how many of 256 bits of their perceptual hashes differ."""

    case: str
    other: str
    bits: int


@dataclass(frozen=True)
class ExcludedCase:
    """One case that was left out (only where the protocol allows exclusion).

    Attributes:
        case: its pseudonym, or the row of a manifest that names no file.
        label: as of a `CaseRecord`; null where the data don't tell.
        split: as the data give it; "" where they give none, since splits are made of the cases that are left.
        reason: why it can't be used.
        repeated: the same case is used under another row: nothing is lost with this one.
        masked: as of a `CaseRecord`.
    """

    case: str
    label: Label | None
    split: str
    reason: str
    repeated: bool = False
    masked: tuple[int, ...] = ()


@dataclass(frozen=True)
class CohortRecord:
    """What data a run saw (`cohort.json`).

    Attributes:
        source: `folder`, `manifest`, `npz`, or `dataset`: one of Python, in the user's own code.
        formats: file kinds and how many of each, such as `{"dicom": 60}`.
        splits_from: `given`, or `made` (by patient, from the protocol's seed).
        key_id: names the pseudonym key without revealing it.
        shape: one input's shape (C, *spatial).
        grouped_by: `patient` where the data name patients, `case` where each case stands for one.
        unnamed: how many cases name no patient.
        excluded: cases left out, in the order in which they were found.
        alike: pairs across splits within the protocol's `splits.similar_bits`, or `near_duplicate_bits`; the nearest
            10 000.
        copies: pairs of the test split within `near_duplicate_bits` that join what looks like copies of one image: as
            few as hold each set of them together.
        preprocessing: SHA-256 of the preprocessing recipe and of the keyed digest of the first test case's model input.
    """

    classes: tuple[str, ...]
    source: str
    formats: dict[str, int]
    splits_from: str
    grouped_by: str
    unnamed: int
    key_id: str
    shape: tuple[int, ...]
    cases: tuple[CaseRecord, ...]
    excluded: tuple[ExcludedCase, ...]
    preprocessing: str
    findings: tuple[Finding, ...] = ()
    alike: tuple[AlikePair, ...] = ()
    copies: tuple[AlikePair, ...] = ()

    def split(self, name: str) -> tuple[CaseRecord, ...]:
        """The cases of one split, in their recorded order."""
        return tuple(c for c in self.cases if c.split == name)

    @property
    def lost(self) -> tuple[ExcludedCase, ...]:
        """The cases left out that are not used under another row."""
        return tuple(c for c in self.excluded if not c.repeated)

    @property
    def multilabel(self) -> bool:
        """Whether a case may have several findings, or none."""
        return bool(self.cases) and not isinstance(self.cases[0].label, int)


@dataclass(frozen=True)
class ModelRecord:
    """A classifier as loaded: enough to build it again from its weights alone.

    Attributes:
        source: `timm`, `monai`, `torchvision`, `bundle` or `python`.
        arch: the name within that source, such as `resnet18` or `DenseNet121`.
        arguments: constructor arguments beyond the number of classes and channels.
        classes, channels, dims: outputs, input channels, 2 or 3 spatial dimensions.
        mean, std: input normalisation, one value a channel, applied inside the model to [0, 1] input.
        one_logit: the network has one sigmoid output and is presented as two classes.
        file: SHA-256 of the file the weights came from; of a module given in Python `module:` and `state`.
        state: digest of parameters and buffers.
        parameters: how many weights.
        output: key or index of the logits in what the network returns; null where it returns them alone.
        class_names: of the outputs, in their order, as the file names them; empty where it does not.
        origins: part, such as `mean`, to where it came from: `protocol`, `checkpoint`, or assumed; and what was done to
            the names of the weights.
        assumed: sentences on what nothing confirms.
        zscore: `case` or `channel`: the network is fed z-scores over these in the place of mean and std.
        zscore_nonzero: whether over values other than 0 alone.
    """

    source: str
    arch: str
    arguments: dict[str, object]
    classes: int
    channels: int
    dims: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    one_logit: bool
    file: str
    state: str
    parameters: int
    output: str | int | None = None
    class_names: tuple[str, ...] = ()
    origins: dict[str, str] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    zscore: str | None = None
    zscore_nonzero: bool = False

    @property
    def from_module(self) -> bool:
        """Whether it was given as a module in Python, and not as a file."""
        return self.file.startswith("module:")
