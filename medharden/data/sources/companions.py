"""Files beside the images that are no cases: masks, segmentations, further modalities of one examination."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from medharden.errors import DataError
from medharden.protocol import Cases

__all__ = ["CompanionsError", "chosen", "refuse_companions", "refuse_folders_of_files"]

_MASK = (
    r"(?:masks?|seg|segs|segmentations?|segm|gt|ground[_ -]?truths?|roi|rois|labelmaps?|annotations?|annots?|annotated|"
    r"contours?|labels?|superpixels?|delineations?|lesions?mask)"
)
_FOLDER = re.compile(rf"(?:[a-z0-9]+[_ -])*{_MASK}(?:[_ -](?:images?|png|\d+)|Tr|Ts|Val)?", re.IGNORECASE)
_ENDING = re.compile(
    rf"(?P<base>.*?[a-z0-9)])(?P<mark>[_\-. ]{_MASK}(?:[_\-. ]?\d{{1,3}})?)", re.IGNORECASE | re.DOTALL
)
_GLUED = re.compile(r"(?P<base>.*[a-z0-9)])(?P<mark>Mask|Seg|Segmentation|Label|GT)", re.DOTALL)
_BEGINNING = re.compile(rf"(?P<mark>{_MASK}[_\-])(?P<base>.+)", re.IGNORECASE | re.DOTALL)
_IMAGES = re.compile(r"(?:[a-z0-9]+[_ -])*(?:images?|imgs?)(?:Tr|Ts)?", re.IGNORECASE)
_BARE = re.compile(_MASK, re.IGNORECASE)
_MODALITY = re.compile(
    r"(?:(?P<base>.*)[_\-. ])?(?P<mark>t1|t1w|t1c|t1ce|t1gd|t1n|t1post|t1_?km|t2|t2w|t2f|t2star|flair|dwi|adc|pd|pdw|"
    r"swi|dce|cbf|cbv|mtt|tmax|bold|pet|suv|ct|ctres|cect|mr|mri|hbv|cor|sag|tra|000[0-5])",
    re.IGNORECASE | re.DOTALL,
)
_NUMBERED = re.compile(
    r"(?:im|imgs?|images?|parts?|batch|chunks?|shards?|data|dir|(?:sub)?sets?|slices?|patients?|pat|sub|subjects?|person|cases?|"
    r"scans?|series|stud(?:y|ies)|ses|sessions?|visits?|views?|pts?|sbj|subj|pid)[_\- ]*\d+|s[_\- ]?\d{3,}",
    re.IGNORECASE,
)
_PUT = re.compile(r"(?P<base>.*[a-z0-9)])(?P<mark>[_\-. ][a-z]{1,20})", re.DOTALL)
_ENDINGS = re.compile(r"(\.nii)?\.[a-z0-9]{1,6}$", re.IGNORECASE)
_SHOWN, _MOST_NAMED, _FEWEST_PUT = 4, 20, 3
_MOST_HAVE = 0.9  # of the examinations


class CompanionsError(DataError):
    """Files that look like masks or further modalities.

    Attributes:
        exclude: patterns that leave the masks out.
        channels: modality to pattern, of those that most examinations have; empty where there are no two.
    """

    def __init__(self, message: str, exclude: tuple[str, ...], channels: dict[str, str]) -> None:
        super().__init__(message)
        self.exclude, self.channels = exclude, channels


@dataclass(frozen=True)
class _Kind:
    """Some files that look like companions: how many, by what sign, and the pattern that leaves them out."""

    count: int
    sign: str
    pattern: str


def chosen(path: str, rule: Cases) -> bool:
    """Whether a file is a case by the protocol's `cases.include` and `cases.exclude`.

    Args:
        path: below the data's root, with forward slashes.
        rule: of the protocol.
    """
    if rule.include and not any(_fits(path, pattern) for pattern in rule.include):
        return False
    return not any(_fits(path, pattern) for pattern in rule.exclude)


def _fits(path: str, pattern: str) -> bool:
    whole = path if "/" in pattern else PurePosixPath(path).name
    return fnmatchcase(whole.casefold(), pattern.casefold())


def refuse_folders_of_files(classes: Iterable[str], wanted: Sequence[str] | None) -> None:
    """Stops where folders for classes are of images and of their masks, or parts, or patients.

    Args:
        classes: names of the folders.
        wanted: the protocol's `task.classes`, under which they are classes after all.

    Raises:
        DataError: there is one of images and one of masks, or all are parts or patients by a number.
    """
    names = sorted(set(classes))
    if set(names) == set(wanted or ()):
        return
    if any(map(_IMAGES.fullmatch, names)) and not any(map(_FOLDER.fullmatch, names)):
        raise DataError(
            f"expected a folder for each class, found {names[:_MOST_NAMED]}: a folder of that name holds images, and "
            "is no class. Give the folder in which the classes are, or a CSV with a path and a label column; where it "
            "is a class after all, name it in task.classes"
        )
    if len(names) > 1 and all(map(_NUMBERED.fullmatch, names)):
        raise DataError(
            f"expected a folder for each class, found {len(names)} folders that are numbered as parts of an archive or "
            "as patients are, such as images_001 or sub-02. Give a CSV with a path and a label column, or a folder for "
            "each class; where these are classes after all, name them in task.classes"
        )
    if any(map(_IMAGES.fullmatch, names)) and any(map(_FOLDER.fullmatch, names)):
        raise DataError(
            f"expected a folder for each class, found {names[:_MOST_NAMED]}: a folder of images and one of masks or "
            "labels are no classes. Give a CSV with a path and a label column, or a folder for each class"
        )


def refuse_companions(cases: Sequence[tuple[str, str]], rule: Cases, *, modalities: bool = True) -> None:
    """Stops where files look like masks or further modalities of a case, not like cases.

    Where the protocol says by `cases.include` which files are cases, nothing is guessed.

    Args:
        cases: of each file the path below its class's folder, and of that folder below the root.
        rule: of the protocol.
        modalities: whether several modalities are looked for; a manifest may list them on purpose.

    Raises:
        DataError: with the number of files of each kind and the patterns that would leave them out.
    """
    if rule.include:
        return
    together = _examinations(cases) if modalities else []
    kinds = [*_masks(cases), *_modalities(together)]
    if not kinds:
        return
    signs = "; ".join(f"{k.count} with {k.sign}" for k in kinds)
    masks = [k.pattern for k in kinds if not k.pattern.startswith("+")]
    several = [k.pattern[1:] for k in kinds if k.pattern.startswith("+")]
    advice = [f"leave them out with cases.exclude: {masks} in the protocol"] if masks else []
    if several:
        advice.append(
            f"name the one modality that is the case, such as cases.include: [{several[0]!r}], or stack several as "
            "channels with input.channels_from"
        )
    advice.append("where they are cases after all, say so with cases.include: ['*']")
    message = (
        f"among the {len(cases)} image files are some that look like masks, or like several modalities of one "
        f"examination, and not like cases of their own: {signs}; {'; '.join(advice)}"
    )
    raise CompanionsError(message, tuple(masks), _as_channels(together))


def _stem(name: str) -> str:
    return _ENDINGS.sub("", name)


def _masks(cases: Iterable[tuple[str, str]]) -> list[_Kind]:
    """By a folder's name, or by a mark at either end of a file's name beside a file without it."""
    folders, marks = Counter[str](), Counter[str]()
    stems: dict[tuple[str, PurePosixPath], set[str]] = defaultdict(set)
    for text, where in cases:
        place = PurePosixPath(text)
        stems[where, place.parent].add(_stem(place.name).casefold())
    for text, where in cases:
        place = PurePosixPath(text)
        inside = next((part for part in place.parts[:-1] if _FOLDER.fullmatch(part)), None)
        if inside is not None:
            folders[inside] += 1
            continue
        stem, beside = _stem(place.name), stems[where, place.parent]
        for form, begins in ((_ENDING, False), (_GLUED, False), (_BEGINNING, True)):
            found = form.fullmatch(stem)
            # a name that ends so is a mask's, whether or not its image lies beside it
            if found is not None and (form is _ENDING or _has(beside, found["base"].casefold(), stem.casefold())):
                mark = re.sub(r"\d+$", "*", found["mark"].lower())
                marks[f"{mark}*" if begins else f"*{mark}.*"] += 1
                break
        else:
            if _BARE.fullmatch(stem) and len(beside) > 1:
                marks[f"{stem.lower()}.*"] += 1
    for mark, n in _put_to_names(stems).items():
        marks.setdefault(mark, n)
    kinds = [_Kind(n, f"a folder {name!r}", f"*/{name}/*") for name, n in folders.most_common(_SHOWN)]
    return kinds + [_Kind(n, f"a name of the form {mark!r}", mark) for mark, n in marks.most_common(_SHOWN)]


def _put_to_names(stems: Mapping[tuple[str, PurePosixPath], set[str]]) -> Counter[str]:
    """Words that are put to the names of other files, whatever they say: `x_lesion`, always beside `x`, some times."""
    beside, alone = Counter[str](), Counter[str]()
    for names in stems.values():
        for name in names:
            found = _PUT.fullmatch(name)
            if found is not None:
                (beside if found["base"] in names else alone)[found["mark"]] += 1
    return Counter({f"*{mark}.*": n for mark, n in beside.items() if n >= _FEWEST_PUT and not alone[mark]})


def _has(beside: set[str], base: str, own: str) -> bool:
    """Whether there is the file that the mark was put to, or another part of the same examination."""
    return base in beside or any(s != own and s.startswith(base) and not s[len(base)].isalnum() for s in beside)


def _examinations(cases: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Files of one folder whose names differ in the name of a modality alone: modality to name, of each such set."""
    together: dict[tuple[str, PurePosixPath, str], dict[str, str]] = defaultdict(dict)
    for text, where in cases:
        place = PurePosixPath(text)
        found = _MODALITY.fullmatch(_stem(place.name))
        numbered = found is not None and found["mark"].isdigit()
        if found is None or (numbered and not place.name.lower().endswith((".nii", ".nii.gz"))):
            continue
        together[where, place.parent, (found["base"] or "").casefold()][found["mark"].lower()] = place.name
    return [group for group in together.values() if len(group) > 1]


def _modalities(together: Sequence[dict[str, str]]) -> list[_Kind]:
    marks = Counter(mark for group in together for mark in group)
    bare = all(_stem(name).casefold() == mark for group in together for mark, name in group.items())
    return [
        _Kind(n, f"a name that ends in {mark!r}", f"+{'' if bare else '*[_. -]'}{mark}.*")
        for mark, n in marks.most_common(_SHOWN)
    ]


def _as_channels(together: Sequence[dict[str, str]]) -> dict[str, str]:
    """Modality to the pattern of its files, of those that most examinations have, in the order of names."""
    counts = Counter(mark for group in together for mark in group)
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    for group in together:
        for mark, name in group.items():
            stem, ending = _stem(name), name[len(_stem(name)) :]
            before = len(stem) - len(mark)
            ends[mark][f"*{stem[before - 1]}{mark}{ending}" if before else f"{mark}{ending}"] += 1
    marks = sorted(mark for mark, n in counts.items() if n >= _MOST_HAVE * len(together))
    return {mark: ends[mark].most_common(1)[0][0] for mark in marks} if len(marks) > 1 else {}
