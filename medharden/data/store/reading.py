"""Decoding and preprocessing every listed case once, in threads, into memory or onto disk."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from medharden.data.layout import Entry, Listing
from medharden.data.limits import Hold, Room
from medharden.data.preprocessing import Recipe, Window, preprocess
from medharden.data.stored import StoredImage, quiet_readers, slabs
from medharden.errors import DataError, OutputError
from medharden.protocol import Input
from medharden.record import Progress

__all__ = ["ReadCase", "Shelf", "assemble", "read_cases", "recipe_for"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ReadCase:
    """What is kept of a case once its input lies on the shelf.

    Attributes:
        shape: of its model input (C, *spatial), before colour is decided for the cohort.
        native: the stored image's spatial shape.
        low, high: smallest and largest rescaled value.
        flat: whether preprocessing left one value only.
        windows: how many windows its file offers; 0 where it offers none.
        notes: codes of findings about what its reader left aside.
    """

    shape: tuple[int, ...]
    native: tuple[int, ...]
    low: float
    high: float
    flat: bool
    windows: int
    format: str
    pixels: str
    patient: str
    attributes: dict[str, str]
    identifiers: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Shelf:
    """Holds model inputs until all are read: in memory up to a limit, then on disk, one file each."""

    def __init__(self, limit: int, folder: Path) -> None:
        self._limit, self._folder, self._bytes = limit, folder, 0
        self._kept: dict[int, Floats | Path] = {}

    def put(self, number: int, array: Floats) -> None:
        """Keeps one input.

        Raises:
            OutputError: the disk is full.
        """
        self._bytes += array.nbytes
        if self._bytes <= self._limit:
            self._kept[number] = array
            return
        path = self._folder / f"{number}.npy"
        try:
            np.save(path, array, allow_pickle=False)
        except OSError as error:
            raise OutputError(f"decoded cases could not be kept on disk: {error.strerror}; expected room") from None
        self._kept[number] = path

    def take(self, number: int) -> Floats:
        """Hands one input out and forgets it."""
        kept = self._kept.pop(number)
        if isinstance(kept, np.ndarray):
            return kept
        array: Floats = np.load(kept, allow_pickle=False)
        kept.unlink()
        return array


def recipe_for(image: StoredImage, spec: Input) -> Recipe:
    """The recipe that the protocol and the file ask for, with the window's borders resolved.

    Raises:
        DataError: the file gives no window and the protocol none either, or the percentiles coincide.
    """
    intensity = spec.intensity
    if intensity.mode == "file":
        if image.window is None:
            raise DataError(
                "holds values without a known range and no window of its own; "
                "set input.intensity to mode 'window' or 'percentile'"
            )
        window = image.window
    elif intensity.mode == "window":
        window = Window(float(intensity.low or 0.0), float(intensity.high or 0.0))
    else:
        low, high = np.percentile(image.values, [float(intensity.low or 0.0), float(intensity.high or 0.0)])
        if not low < high:
            raise DataError("has the same value at both percentiles of input.intensity")
        window = Window(float(low), float(high))
    channels = {"gray": 1, "rgb": 3, "auto": image.values.shape[0]}[spec.channels]
    return Recipe(window, image.inverted, channels, spec.size, spec.fit)


def read_cases(
    listing: Listing, spec: Input, shelf: Shelf, *, room: Room, workers: int, progress: Progress | None
) -> list[ReadCase | str]:
    """Reads every entry; a case that can't be used gives the reason in its place.

    The threads share the room: one that needs more than is free waits for the others. Stopping (KeyboardInterrupt)
    waits for the files in hand only.
    """
    results: list[ReadCase | str] = [""] * len(listing.entries)
    with quiet_readers():
        pool = ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="medharden-read")
        try:
            pending = {pool.submit(_read, listing.read, e, spec, room): n for n, e in enumerate(listing.entries)}
            for done, future in enumerate(as_completed(pending), start=1):
                number = pending.pop(future)
                results[number] = _kept(future, number, shelf)
                if progress is not None:
                    progress("read", done, len(listing.entries))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results


def _kept(future: Future[tuple[ReadCase, Floats] | str], number: int, shelf: Shelf) -> ReadCase | str:
    """Shelves the input; an error that no reader foresaw gives its type alone, since its text may quote the header."""
    unforeseen = future.exception()
    if unforeseen is not None:
        return f"can't be read: {type(unforeseen).__name__}"
    outcome = future.result()
    if isinstance(outcome, str):
        return outcome
    shelf.put(number, outcome[1])
    return outcome[0]


def _read(
    read: Callable[[Entry, Hold], StoredImage], entry: Entry, spec: Input, room: Room
) -> tuple[ReadCase, Floats] | str:
    try:
        with room.file() as hold:
            return _case_of(read(entry, hold), spec)
    except DataError as error:
        return str(error)


def _case_of(image: StoredImage, spec: Input) -> tuple[ReadCase, Floats]:
    low, high = _range(image.values)
    with torch.no_grad():
        unit = preprocess(torch.from_numpy(image.values), recipe_for(image, spec)).contiguous().numpy()
    case = ReadCase(
        shape=unit.shape,
        native=image.values.shape[1:],
        low=low,
        high=high,
        flat=bool(unit.min() == unit.max()),
        windows=image.windows,
        format=image.format,
        pixels=image.pixels,
        patient=image.patient,
        attributes=image.attributes,
        identifiers=image.identifiers,
        notes=image.notes,
    )
    return case, unit


def _range(values: Floats) -> tuple[float, float]:
    missing = values.size - sum(int(np.isfinite(v[part]).sum()) for v in values for part in slabs(v.shape))
    if missing:
        raise DataError(f"holds {missing} values that are not finite")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise DataError("is constant: all values are equal")
    return low, high


def assemble(
    shelf: Shelf, numbers: Sequence[int], shape: tuple[int, ...], *, limit: int, scratch: Path | None
) -> Floats:
    """(N, *shape) read-only, in memory where it fits, else mapped from a file; grey becomes colour where asked.

    Raises:
        OutputError: the file can't be written.
    """
    whole = (len(numbers), *shape)
    if 4 * int(np.prod(whole, dtype=np.int64)) <= limit:
        inputs = np.empty(whole, dtype=np.float32)
        for row, number in enumerate(numbers):
            inputs[row] = shelf.take(number)
        inputs.flags.writeable = False
        return inputs
    try:
        folder = tempfile.TemporaryDirectory(prefix="medharden-", dir=scratch, ignore_cleanup_errors=True)
        path = Path(folder.name) / "inputs.npy"
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=whole)
        for row, number in enumerate(numbers):
            mapped[row] = shelf.take(number)
        mapped.flush()
        del mapped
        on_disk: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise OutputError(f"the cohort could not be kept on disk: {error.strerror}; expected room") from None
    weakref.finalize(on_disk, folder.cleanup)
    return on_disk
