"""Answers of a released model to single files, read through the view that it was gated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medharden.canonical import canonical_json
from medharden.data import Given, SingleCase, given_cases, read_single
from medharden.errors import DataError, ModelError
from medharden.models import Contract, HardenedClassifier, answers, load_hardened, probabilities
from medharden.protocol import Input
from medharden.sizes import MAX_DECODED

__all__ = ["Prediction", "ViewTransform", "contract_of", "predict", "read_case"]


@dataclass(frozen=True)
class Prediction:
    """What a released model says of one case, or why it says nothing.

    Attributes:
        path: the file as it was given; of several files their folder, and what tells the case from others there.
        answer: the class; of a multi-label task the findings that are there. Empty where the file is refused.
        probabilities: one a class or finding, in their order; empty where the file is refused.
        referred: whether a reader is told to look (`guarded` alone).
        notes: what a reader must know of how the file was read.
        refused: why the view doesn't take the file; empty where it does.
    """

    path: str
    answer: tuple[str, ...]
    probabilities: tuple[float, ...]
    referred: bool
    notes: tuple[str, ...] = ()
    refused: str = ""


def read_case(
    path: Path | str | Sequence[Path | str],
    run: Path | str | HardenedClassifier,
    *,
    arch: str | None = None,
    max_decoded: int = MAX_DECODED,
) -> Tensor:
    """One case as the input that a run's model was gated on.

    Args:
        path: a DICOM, NIfTI or picture file; the folder of a series, or of the images that are channels; or the files
            of one case.
        run: the run directory, or the model loaded from it, which saves loading it again.
        arch: the `python:` architecture, where the original had one; it must be named again to be run.
        max_decoded: bytes of memory that reading may take.

    Returns:
        (1, C, *spatial) float32 in [0, 1], as the model takes it.

    Raises:
        DataError: the view doesn't take the file.
        ModelError: there is no such run, or its model doesn't know its input.
    """
    model = run if isinstance(run, HardenedClassifier) else load_hardened(Path(run), arch=arch)
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    try:
        cases = given_cases([Path(one) for one in paths], contract_of(model).input)
        if len(cases) != 1:
            raise DataError(f"holds {len(cases)} cases by the model's view, expected one")
        return _single(cases[0], model, max_decoded).input[None]
    except DataError as error:
        what = "the file" if len(paths) == 1 and not Path(paths[0]).is_dir() else "the case"
        raise DataError(f"{what} {error}") from None


def predict(
    model: HardenedClassifier, paths: Sequence[Path], *, device: str = "cpu", max_decoded: int = MAX_DECODED
) -> Iterator[Prediction]:
    """Answers cases one by one; one that the view doesn't take is refused with its reason, and the next is answered.

    Args:
        model: as `load_hardened` gives it; moved to the device.
        paths: DICOM, NIfTI or picture files, or folders of them (`data.given_cases`).
        device: where to compute.
        max_decoded: bytes of memory that reading one file may take.

    Raises:
        ModelError: the model doesn't know its input and classes.
    """
    contract, model = contract_of(model), model.to(device)
    for given in given_cases(paths, contract.input):
        try:
            case = _single(given, model, max_decoded)
        except DataError as error:
            yield Prediction(given.name, (), (), referred=False, refused=str(error))
            continue
        yield _answered(given.name, case, model, contract, device)


def contract_of(model: HardenedClassifier) -> Contract:
    """What a model takes and answers.

    Raises:
        ModelError: it doesn't know.
    """
    if model.contract is None:
        raise ModelError(
            "hardened.json doesn't say what the model takes: the run was made by an earlier medharden; harden again"
        )
    return model.contract


def _single(given: Given, model: HardenedClassifier, max_decoded: int) -> SingleCase:
    contract = contract_of(model)
    return read_single(given, contract.input, contract.shape, max_decoded=max_decoded)


@torch.no_grad()
def _answered(path: str, case: SingleCase, model: HardenedClassifier, contract: Contract, device: str) -> Prediction:
    assessed = model.assess(case.input[None].to(device))
    decided = answers(assessed.logits + model.decision_bias, multilabel=model.multilabel)[0]
    present = decided.nonzero().flatten().tolist() if model.multilabel else [int(decided)]
    shares = probabilities(assessed.logits.double(), multilabel=model.multilabel)[0]
    return Prediction(
        path=path,
        answer=tuple(contract.classes[k] for k in present),
        probabilities=tuple(shares.tolist()),
        referred=bool(assessed.referred[0]),
        notes=case.notes,
    )


class ViewTransform:
    """The view as a transform of MONAI: a file's path to its input, for an exported bundle's `preprocessing`."""

    def __init__(self, view: Mapping[str, Any], shape: Sequence[int]) -> None:
        """Takes the view's fields, as a bundle's configuration has them, and (C, *spatial) of a case."""
        self._view, self._shape = Input.model_validate_json(canonical_json(dict(view))), tuple(shape)

    def __call__(self, path: str | Path) -> dict[str, Any]:
        """The input (C, *spatial) under `image`, and the path under `image_meta_dict`.

        Raises:
            DataError: the view doesn't take the file.
        """
        try:
            given = given_cases([Path(path)], self._view)
            if len(given) != 1:
                raise DataError(f"holds {len(given)} cases by the view, expected one")
            case = read_single(given[0], self._view, self._shape)
        except DataError as error:
            raise DataError(f"{path} {error}") from None
        return {"image": case.input, "image_meta_dict": {"filename_or_obj": str(path)}}
