"""A torch `Dataset` of (input, label): its items checked and taken as cases, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Interface

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from medharden.data.formats.image import StoredImage, digest_array
from medharden.data.sources.findings import FindingReader
from medharden.data.sources.folder import Entry, split_of
from medharden.data.view.case import READY
from medharden.errors import DataError, ProtocolError
from medharden.foreign import place_of
from medharden.protocol import Protocol
from medharden.record import Finding
from medharden.shortage import shortage

__all__ = ["Item", "Items", "SizedDataset"]

_MOST_NUMBERS = 20
_AGAIN = 5  # items that are asked for twice


class SizedDataset(Interface):
    """What a map-style `torch.utils.data.Dataset` is: items by number, and how many."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Item:
    """One item as a case: its entry, and its input as an image of the format `dataset`."""

    entry: Entry
    image: StoredImage


class Items:
    """The items of a dataset under a protocol, with what is said beside them.

    Args:
        dataset: has a length, and gives (input, label) by number.
        protocol: its `input.intensity.mode` is `ready`; its task says what labels are.
        classes: names of the labels 0, 1, ...; null takes the protocol's.
        patients: (N,) of each item its patient, or null where there is none; null names none.
        splits: (N,) of each item `train`, `val` or `test`; null leaves them to the protocol.
        attributes: column to (N,) values, such as `{"sex": [...]}`, for subgroups.

    Raises:
        DataError: the dataset, or what is said beside it, is of another kind or length.
        ProtocolError: the protocol says how files become input.
    """

    def __init__(
        self,
        dataset: Any,
        protocol: Protocol,
        *,
        classes: Sequence[str] | None,
        patients: Sequence[Any] | None,
        splits: Sequence[str | None] | None,
        attributes: Mapping[str, Sequence[Any]] | None,
    ) -> None:
        if protocol.input.intensity.mode != "ready":
            raise ProtocolError(
                f"the protocol {protocol.name} says how files become model input, and a dataset gives model input: set "
                "input: {intensity: {mode: ready}} in it, or give the files to load_cohort"
            )
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise DataError(
                f"expected a Dataset with __len__ and __getitem__, found {type(dataset).__name__}; list what a stream "
                "gives, such as list(stream)"
            )
        self._dataset, self._dims, self._task = dataset, protocol.input.dims, protocol.task
        self.classes = _classes(classes, protocol)
        self._findings = FindingReader(protocol.task) if protocol.task.multilabel else None
        count = len(self)
        if not count:
            raise DataError("the dataset is empty")
        self._patients = [_patient(one) for one in _as_long(patients, count, "patients")]
        self._splits = [_split(one) for one in _as_long(splits, count, "splits")]
        self._columns = {
            name: _as_long(values, count, f"attributes[{name!r}]") for name, values in (attributes or {}).items()
        }

    def __len__(self) -> int:
        return len(self._dataset)

    def entry(self, row: int, label: str | tuple[str, ...] = "") -> Entry:
        """What is said of an item beside its input."""
        columns = {name: str(values[row]) for name, values in self._columns.items() if values[row] is not None}
        return Entry(f"dataset/{row}", label, self._splits[row], self._patients[row], columns, row=row)

    def take(self, row: int) -> Item:
        """One item.

        Raises:
            DataError: it can't be had, or is none of (input, label); the reason alone.
        """
        item = self._got(row)
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(
                f"is a {_shown(item)}; expected (input, label): wrap the dataset in one that gives these two"
            )
        values = _values(item[0], self._dims)
        image = StoredImage(values=values, window=None, format=READY, pixels=digest_array(values))
        label, masked = self._label(item[1])
        return Item(replace(self.entry(row, label), masked=masked), image)

    def require_steady(self, pixels: Mapping[int, str]) -> None:
        """Asks for a few items again: one that changes makes no evidence.

        Args:
            pixels: row to the digest of the input that was had before.

        Raises:
            DataError: an item gave another input.
        """
        rows = sorted(pixels)
        for row in rows[:: max(1, len(rows) // _AGAIN)]:
            if self.take(row).image.pixels != pixels[row]:
                raise DataError(
                    f"item {row} of the dataset gives another input each time it is asked for; leave random "
                    "augmentation out of it: hardening augments by the protocol's hardening.augment"
                )

    def with_numbers(self, error: DataError, name: Callable[[str], str]) -> DataError:
        """The same error with the numbers of its items, for whoever has the dataset; they go on no record."""
        wrong = {problem.case for problem in error.problems}
        rows = [str(row) for row in range(len(self)) if wrong and name(self.entry(row).text) in wrong]
        if not rows:
            return error
        shown = ", ".join(rows[:_MOST_NUMBERS]) + (", ..." if len(rows) > _MOST_NUMBERS else "")
        return DataError(f"{error}\nin the dataset these are the items {shown}", error.problems)

    def excludes(self, problem: str) -> bool:
        """Whether the protocol says that an item with this problem is left out, and no error."""
        return self._findings is not None and self._findings.excludes(problem)

    def noted(self) -> tuple[Finding, ...]:
        """What a reader must know of the labels."""
        return () if self._findings is None else self._findings.noted()

    def _got(self, row: int) -> Any:
        try:
            return self._dataset[row]
        except Exception as error:  # the user's own code may raise anything
            if shortage(error) is not None:
                raise
            raise DataError(f"can't be had: the dataset's own code stopped with {place_of(error)}") from error

    def _label(self, label: Any) -> tuple[str | tuple[str, ...], tuple[str, ...]]:
        """The class, or the findings that are there and those that are masked."""
        if self._findings is not None:
            numbers = _numbers(label)
            if numbers is None or numbers.shape != (len(self.classes),):
                raise DataError(
                    f"has the label {_shown(label)}; expected {len(self.classes)} numbers, 1 or 0 a finding"
                )
            said = self._findings.from_numbers(numbers.astype(np.float64))
            if said.problem:
                raise DataError(said.problem)
            return said.present, said.masked
        numbers = _numbers(label)
        if numbers is None or numbers.size != 1 or numbers.ndim > 1 or numbers.dtype.kind not in "biu":
            raise DataError(f"has the label {_shown(label)}; expected one class as a whole number from 0")
        number = int(numbers.reshape(-1)[0])
        if not 0 <= number < len(self.classes):
            raise DataError(
                f"has the label {number}; there are {len(self.classes)} classes, 0 to {len(self.classes) - 1}"
            )
        return self.classes[number], ()


def _classes(classes: Sequence[str] | None, protocol: Protocol) -> tuple[str, ...]:
    """Names of the labels: given, or the protocol's, which must then be the same in the same order."""
    wanted = protocol.task.classes
    if isinstance(classes, str) or (classes is not None and not all(isinstance(name, str) for name in classes)):
        raise DataError("classes: expected a list of names, such as ['benign', 'malignant']")
    given = wanted if classes is None else tuple(classes)
    if given is None:
        raise DataError("the labels 0, 1, ... have no names: give classes=[...], in that order, or set task.classes")
    if wanted is not None and given != wanted:
        raise DataError(f"classes are {list(given)}, the protocol's task.classes {list(wanted)}; they must agree")
    if len(set(given)) != len(given):
        raise DataError("classes: a name stands twice")
    return given


def _as_long(values: Sequence[Any] | None, count: int, what: str) -> list[Any]:
    if values is None:
        return [None] * count
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        raise DataError(f"{what}: expected one for each of the {count} items, found a {type(values).__name__}")
    if len(values) != count:
        raise DataError(f"{what}: expected {count}, one for each item of the dataset, found {len(values)}")
    return list(values)


def _patient(one: Any) -> str:
    """An identifier as text; a missing one, NaN of a table included, is none."""
    if one is None or (isinstance(one, float) and one != one):
        return ""
    if isinstance(one, float) and one.is_integer():
        one = int(one)  # as a table reads numbers where some are missing
    if isinstance(one, (str, int, np.integer, np.str_)) and not isinstance(one, bool):
        return str(one)
    raise DataError(f"patients: expected a text or a whole number for each item, found a {type(one).__name__}")


def _split(one: Any) -> str:
    if one is None:
        return ""
    name = split_of(one) if isinstance(one, str) else ""
    if not name:
        raise DataError(f"splits: expected train, val or test for each item, found {_shown(one)}")
    return name


def _values(given: Any, dims: int) -> npt.NDArray[np.float32]:
    """(1 or 3, *spatial) float32 in [0, 1]."""
    if not isinstance(given, (Tensor, np.ndarray)):
        raise DataError(f"has for its input a {_shown(given)}; expected a tensor or an array (transforms.ToTensor)")
    tensor = given.detach().as_subclass(Tensor).cpu() if isinstance(given, Tensor) else torch.from_numpy(given)
    if not tensor.dtype.is_floating_point:
        raise DataError(f"has input of {tensor.dtype}; expected floating point in [0, 1] (divide by the largest value)")
    if tensor.ndim == dims:
        tensor = tensor[None]
    if tensor.ndim != dims + 1 or tensor.shape[0] not in (1, 3) or not tensor.numel():
        raise DataError(
            f"has input of shape {tuple(tensor.shape)}; expected 1 or 3 channels and {dims} axes (input.dims), as "
            f"{'(C, H, W)' if dims == 2 else '(C, D, H, W)'}"
        )
    values: npt.NDArray[np.float32] = tensor.float().contiguous().numpy()
    if np.isfinite(values).all() and (float(values.min()) < 0 or float(values.max()) > 1):
        raise DataError(
            f"has input in [{float(values.min()):.4g}, {float(values.max()):.4g}]; expected [0, 1]: take the "
            "normalisation out of the dataset, and give it to Classifier.from_module as its normaliser"
        )
    return values


def _numbers(label: Any) -> npt.NDArray[Any] | None:
    if isinstance(label, Tensor):
        label = label.detach().cpu().numpy()
    if isinstance(label, (bool, int, float, np.ndarray, np.generic, list, tuple)):
        try:
            found: npt.NDArray[Any] = np.asarray(label)
        except ValueError:  # lists of several lengths
            return None
        return found if found.dtype.kind in "biuf" else None
    return None


def _shown(value: Any) -> str:
    """What kind of thing it is, never what it holds, which may name a patient."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    sized = isinstance(value, (tuple, list, dict))
    return f"{type(value).__name__} of {len(value)}" if sized else type(value).__name__
