"""`medharden protocol new`: a protocol written from data and model, with questions at a terminal."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import typer
from rich.text import Text

from medharden.audit import write_atomic
from medharden.cli.console import marked, out
from medharden.cli.drafting import Choices, draft, likely_positive
from medharden.data import load_pseudonym_key
from medharden.data.sources.listing import require_source
from medharden.data.survey import Survey, survey
from medharden.errors import ModelError, OutputError
from medharden.models import SourceView, load_classifier
from medharden.protocol import ModelSpec, load_protocol, parse_protocol
from medharden.protocol.deciding import LARGEST_BARE_MARGIN
from medharden.record import ModelRecord
from medharden.text import neutral

__all__ = ["Draft", "run_new"]

T = TypeVar("T")
_LARGEST_SIDE = 2**13
_LEAST_POINTS = 0.1
_FLAT_KERNEL = 4  # axes of the weights of a convolution over two


@dataclass(frozen=True)
class Draft:
    """What the command was asked to do."""

    data: Path
    model: Path | None
    target: Path
    arch: str | None
    like: str
    yes: bool
    workers: int
    key_file: Path | None
    max_decoded: int


class _SlicesError(Exception):
    """The model takes single slices, where the data were seen as volumes of them."""


def run_new(job: Draft) -> None:
    """Looks at data and model, asks what they don't tell, and writes the protocol.

    Raises:
        OutputError: the file is there already, or can't be written.
        DataError: the data can't be listed or read.
        ModelError: the model can't be loaded.
    """
    if job.target.exists():
        raise OutputError(f"{job.target.name} is there already, and none is overwritten; choose another --out")
    if job.target.suffix.lower() not in (".yaml", ".yml"):
        raise OutputError(f"expected a name that ends in .yaml as --out, found {job.target.name}")
    if job.model is not None and not job.model.exists():
        raise ModelError(f"there is no model file {job.model.name}; expected a checkpoint, or leave --model out")
    require_source(job.data)
    base = load_protocol(job.like)
    key = load_pseudonym_key(job.key_file)
    look = partial(survey, job.data, base, key=key, workers=job.workers, max_decoded=job.max_decoded)
    seen = look()
    try:
        record, view = _model(job, seen, base.model)
    except _SlicesError:
        seen = look(volumes=False)
        record, view = _model(job, seen, base.model)
    out.say(_said(seen))
    choices = _asked(seen, view, job.target.stem) if _may_ask(job) else _proposed(seen, job.target.stem)
    text = draft(seen, record, choices, _spec(job, base.model), view)
    write_atomic(job.target, text.encode())
    protocol = parse_protocol(text, job.target.name)
    todo = text.count("TO DO")
    lines: list[Text | str] = [
        marked("wrote [bold]{}[/]: it validates, digest {}", job.target, protocol.digest[:16]),
        f"{todo} places in it say TO DO: what only a person can decide",
        f"next: medharden inspect {job.model or 'MODEL'} --data {job.data} --protocol {job.target}",
    ]
    out.show(lines, {"written": str(job.target), "digest": protocol.digest, "to_do": todo})


def _may_ask(job: Draft) -> bool:
    return not job.yes and not out.json and sys.stdin.isatty() and out.terminal


def _model(job: Draft, seen: Survey, like: ModelSpec) -> tuple[ModelRecord | None, SourceView | None]:
    if job.model is None:
        return None, None
    # a source's own input is held against the protocol by the commands that feed it
    spec = like.model_copy(update={"view": "protocol"})
    try:
        model = load_classifier(job.model, arch=job.arch, spec=spec, dims=seen.dims, multilabel=seen.multilabel)
    except ModelError as error:
        if seen.files:
            raise _SlicesError from None
        if "model.arguments" not in str(error):
            raise
        raise ModelError(
            f"{error} A protocol that states them may be named by --like, and the rest is drafted"
        ) from None
    if seen.files and max((weight.ndim for weight in model.parameters()), default=0) == _FLAT_KERNEL:
        raise _SlicesError
    return model.record, model.view


def _spec(job: Draft, like: ModelSpec) -> ModelSpec:
    """What the protocol is to say of the model; a `python:` architecture runs code, and no protocol may name one."""
    named = job.arch is not None and not job.arch.startswith("python:")
    return like.model_copy(update={"arch": job.arch}) if named else like


def _said(seen: Survey) -> str:
    names = ", ".join(seen.classes[:6]) + (f" and {len(seen.classes) - 6} more" if len(seen.classes) > 6 else "")
    whose = "with patients" if seen.patients else "no patients named"
    return f"data: {sum(seen.cases.values()):,} cases ({seen.source}, {', '.join(seen.formats)}), {names}, {whose}"


def _size(seen: Survey) -> tuple[int, ...] | None:
    """The stored size where all are alike, else a usual one that every case is resampled to."""
    if seen.alike and max(seen.shape) <= (256 if seen.dims == 2 else 64):
        return seen.shape
    return (224, 224) if seen.dims == 2 else (64, 64, 64)


def _proposed(seen: Survey, name: str) -> Choices:
    return Choices(name=_as_name(name), positive=likely_positive(seen.classes), size=_size(seen))


def _as_name(stem: str) -> str:
    """A file's name as a protocol's: small letters, digits, dots and hyphens."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9.-]+", "-", plain).strip(".-")[:60] or "protocol"


def _asked(seen: Survey, view: SourceView | None, name: str) -> Choices:
    """What is proposed, each with a question."""
    proposed = _proposed(seen, name)
    positive = proposed.positive
    if len(seen.classes) == 2 and not seen.multilabel:
        question = f"Which class is the finding ({' or '.join(seen.classes)}, or none)?"
        positive = _ask(question, positive or "none", partial(_class, seen.classes))
    size = proposed.size if view is not None else _asked_size(seen, proposed.size)
    accuracy = _share("Largest acceptable loss of accuracy, in points?", proposed.accuracy)
    recall = _share("Largest acceptable loss of each class's recall, in points?", proposed.recall)
    known = ""
    if not seen.patients:
        known = _ask("How is it known that no two cases are of one patient (empty: it is not)?", "", str)
    return Choices(proposed.name, positive, size, accuracy, recall, known)


def _asked_size(seen: Survey, proposed: tuple[int, ...] | None) -> tuple[int, ...] | None:
    shown = " ".join(map(str, proposed)) if proposed else "native"
    example = "224 224" if seen.dims == 2 else "64 64 64"
    return _ask(f"Size that the model was trained on, such as {example}?", shown, partial(_numbers, seen.dims))


def _share(question: str, proposed: float) -> float:
    return _ask(question, f"{100 * proposed:g}", _points)


def _ask(question: str, proposed: str, read: Callable[[str], T]) -> T:
    """Asks until the answer can be read: nothing is taken for what was not said."""
    found: T = typer.prompt(
        neutral(question), default=proposed, show_default=bool(proposed), value_proc=lambda text: read(text.strip())
    )
    return found


def _class(classes: tuple[str, ...], text: str) -> str | None:
    if text in classes or text == "none":
        return text if text in classes else None
    raise typer.BadParameter(f"expected {' or '.join(map(neutral, classes))}, or none")


def _numbers(dims: int, text: str) -> tuple[int, ...] | None:
    if text == "native":
        return None
    parts = [part for part in re.split(r"[\s,x×]+", text.strip("[]()")) if part]
    if len(parts) != dims or not all(part.isdecimal() and 0 < int(part) <= _LARGEST_SIDE for part in parts):
        raise typer.BadParameter(f"expected {dims} whole numbers with blanks between, or native")
    return tuple(map(int, parts))


def _points(text: str) -> float:
    try:
        points = float(text.removesuffix("%"))
    except ValueError:
        points = math.nan
    largest = 100 * LARGEST_BARE_MARGIN
    if not _LEAST_POINTS <= points <= largest:
        raise typer.BadParameter(
            f"expected points from {_LEAST_POINTS:g} to {largest:g}, such as 2; a larger margin needs its reason, in "
            "the file"
        )
    return points / 100
