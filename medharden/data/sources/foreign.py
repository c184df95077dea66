"""Absolute paths of another machine in a manifest: where their files lie below the data's root, or why none is used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

__all__ = ["Foreign", "Parts", "parts_of"]

Parts = tuple[str, ...]


def parts_of(written: str) -> Parts:
    """The folders and the name of an absolute path, POSIX or Windows, without drive, share or root; () of another."""
    text = written.replace("\\", "/")
    windows = PureWindowsPath(text)
    if windows.drive and windows.root:
        return windows.parts[1:]
    return tuple(PurePosixPath(text).parts[1:]) if text.startswith("/") else ()


@dataclass
class Foreign:
    """What was found of them. They are used only where each lies below the root, alone, and no two of them together.

    Attributes:
        used: folders and name to the path below the root; empty where one of them is not to be told.
        depths: how many last parts of a path were found below the root, and of how many paths.
        elsewhere: how many have a file of their name in other folders alone.
        unclear: how many fit several files, or one that another path fits, too.
        here: how many are there on this machine, outside the root: another file is not taken for them.
    """

    used: dict[Parts, str] = field(default_factory=dict)
    depths: Counter[int] = field(default_factory=Counter)
    count: int = 0
    elsewhere: int = 0
    unclear: int = 0
    here: int = 0

    @classmethod
    def of(
        cls,
        paths: Iterable[Parts],
        end: Callable[[Parts], tuple[int, str]],
        named: Callable[[str], bool],
        here: int = 0,
    ) -> Foreign:
        """Looks for the longest end of each path that is a path below the root.

        Args:
            paths: of the rows, a path as often as rows have it.
            end: how many files or folders have that path below the root, and the first.
            named: whether some file below the root is called so.
            here: how many further paths are there, outside the root.
        """
        found, counts = cls(count=here, here=here), Counter(paths)
        places: dict[str, list[Parts]] = defaultdict(list)
        for parts, rows in counts.items():
            found.count += rows
            depth, count, text = _longest(parts, end)
            if count == 1:
                places[text].append(parts)
                found.depths[depth] += rows
            elif count:
                found.unclear += rows
            elif parts and ".." not in parts:
                found.elsewhere += rows * named(parts[-1])
        shared = [parts for several in places.values() if len(several) > 1 for parts in several]
        for parts in shared:
            found.depths[_longest(parts, end)[0]] -= counts[parts]
            found.unclear += counts[parts]
        if found.count == found.depths.total():
            found.used = {parts: text for text, several in places.items() for parts in several}
        return found

    @property
    def way(self) -> str:
        """How those that are used were found, for the record."""
        return f"as an absolute path of another machine, by {self._parts()} of it"

    def told(self, leaving: int, rows: int) -> str:
        """One message of all rows that name nothing below the root; no path.

        Args:
            leaving: how many rows these are, whether their paths are absolute or not.
            rows: of the manifest.
        """
        lie = self.depths.total()
        said = [f"{lie} of these lie below it by {self._parts()}"] if lie else []
        said += [f"{self.unclear} fit several files, or one that another row fits too"] if self.unclear else []
        said += [f"{self.elsewhere} have a file of their name in other folders alone"] if self.elsewhere else []
        lost = self.count - lie - self.unclear - self.elsewhere - self.here
        said += [f"{lost} have none"] if lost else []
        said += [f"{self.here} are there, outside of it"] if self.here else []
        return (
            f"{leaving} of {rows} rows: each has a path that leaves the manifest's folder. {self.count} paths are "
            f"absolute, as of another machine; expected are paths below that folder: {', '.join(said)}. Such paths are "
            "used, by their last parts, where each of them lies below it alone: take out the rows of the others, or "
            "write the paths relative to that folder (columns.path names their column)."
        )

    def _parts(self) -> str:
        """The last parts of a path that were found."""
        depths = sorted(+self.depths)
        if depths == [1]:
            return "the name alone"
        return f"the last {depths[0]} parts" if len(depths) == 1 else f"the last {depths[0]} to {depths[-1]} parts"


def _longest(parts: Parts, end: Callable[[Parts], tuple[int, str]]) -> tuple[int, int, str]:
    """Of the longest end that is there: of how many parts it is, how many fit, and the first."""
    if ".." in parts:
        return 0, 0, ""
    tried = ((length, *end(parts[len(parts) - length :])) for length in range(len(parts), 0, -1))
    return next((one for one in tried if one[1]), (0, 0, ""))
