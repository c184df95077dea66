"""The image of a manifest's row, or the images that are its channels: one a column, or those of the folder it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medharden.data.sources.channels import ChannelPatterns
from medharden.data.sources.columns import Row
from medharden.data.sources.places import FOLDER, Found, Places
from medharden.data.sources.series import SeriesBelow
from medharden.errors import DataError
from medharden.protocol import Input

__all__ = ["RowImages"]

_ONE_FILE = (
    "names one file, where input.channels_from stacks several: name the folder that holds them, or a column for each "
    "in columns.path"
)


class RowImages:
    """Finds what the rows of one manifest name.

    Attributes:
        names: of the channels that a case is stacked of; none where it is one image.
    """

    def __init__(self, places: Places, series: SeriesBelow | None, spec: Input, columns: Sequence[str]) -> None:
        """Takes the places below the root, the series there (of volumes), the input, and the columns of paths.

        Raises:
            DataError: rows list several images of which the protocol doesn't say what they are, or another number.
        """
        self.names = tuple(channel.name for channel in spec.channels_from)
        if len(columns) > 1 and len(columns) != len(self.names):
            raise DataError(
                f"the manifest lists up to {len(columns)} images a case, input.channels_from of the protocol names "
                f"{len(self.names)}; say what they are, such as {{t1: null, flair: null}} for the order in which they "
                "are listed, or a pattern for each"
            )
        if len(columns) == 1 and self.names and not spec.patterned:
            raise DataError(f"each row of the manifest {_ONE_FILE}, and give input.channels_from patterns for that")
        self._places, self._series, self._columns = places, series, tuple(columns)
        self._patterns = ChannelPatterns(spec.channels_from) if spec.patterned else None
        self._folders = series or (SeriesBelow(places.root, spec) if self.names else None)

    def of(self, row: Row) -> Found:
        """Where the row's image lies, or its channels."""
        if len(self._columns) > 1:
            return self._of_columns([row[column] for column in self._columns])
        if self._patterns is None:
            return self._places.find(row[self._columns[0]], self._series)
        return self._of_folder(row[self._columns[0]], self._patterns)

    def _of_columns(self, written: Sequence[str]) -> Found:
        named = [text for text in written if text]
        if len(named) < len(written):
            return Found(
                named[0] if named else "", f"names {len(named)} of {len(written)} images, one for each channel"
            )
        found = [self._places.find(text, self._series) for text in written]
        for one in found:
            if one.problem:
                return one
        if self._patterns is not None:
            order, problem = self._patterns.ordered([one.text for one in found])
            if problem:
                return Found(found[0].text, problem)
            found = [found[place] for place in order]
        files = tuple(one.slices or (self._places.root / one.text,) for one in found)
        if len(set(files)) < len(files):
            return Found(found[0].text, "names one image for two channels")
        return replace(found[0], slices=(), channels=files)

    def _of_folder(self, written: str, patterns: ChannelPatterns) -> Found:
        found = self._places.find(written)
        if found.problem != FOLDER or self._folders is None:
            return found if found.problem else Found(found.text, _ONE_FILE)
        units = [unit for unit in self._folders.of_folder(found.text) if patterns.place(unit.text) is not None]
        broken = next((unit.reason for unit in units if unit.reason), "")
        order, problem = ([], broken) if broken else patterns.ordered([unit.text for unit in units])
        if problem:
            return Found(found.text, problem)
        return Found(found.text, channels=tuple(units[place].files for place in order))
