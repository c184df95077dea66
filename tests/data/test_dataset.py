"""A torch `Dataset` as a cohort: what is taken, what is refused and in which words, and that a change is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import KEY, class_folders, codes, protocol, sizes
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from medharden.audit import canonical_json
from medharden.data import Cohort, given_cases, load_cohort, read_single
from medharden.errors import DataError, ProtocolError
from medharden.protocol import Endpoints, Input, Intensity, Margin, Protocol, Splits, Task

NAMES = ("healthy", "ill")
READY = Input(intensity=Intensity(mode="ready"))

BOTH = Endpoints(noninferiority=(Margin(metric="accuracy", margin=0.1), Margin(metric="recall", margin=0.1)))


def spec(**fields: Any) -> Protocol:
    return protocol(**{"input": READY} | fields)


class Made(Dataset):
    """`count` random images of alternating classes; `changed` maps a row to another item."""

    def __init__(self, count: int = 40, changed: dict[int, Any] | None = None, dims: int = 2, seed: int = 0) -> None:
        self.count, self.changed, self.dims, self.seed = count, changed or {}, dims, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        if row in self.changed:
            item = self.changed[row]
            return item() if callable(item) else item
        draw = torch.Generator().manual_seed(1000 * self.seed + row)
        return torch.rand((1, *[8] * self.dims), generator=draw), row % 2


def cohort(dataset: Any, of: Protocol | None = None, **said: Any) -> Cohort:
    return Cohort.from_dataset(dataset, of or spec(), **{"classes": NAMES, "key": KEY} | said)


def digest(found: Cohort) -> bytes:
    return canonical_json(found.record)


def patients(count: int = 40) -> list[str]:
    return [f"Doe {row // 2 // 2}" for row in range(count)]


def test_inputs_and_labels_are_those_of_the_dataset_bit_for_bit() -> None:
    made = Made()
    found = cohort(made, patients=[f"P{row}" for row in range(40)])
    inputs, labels = found.batch(range(40))
    assert torch.equal(inputs, torch.stack([made[row][0] for row in range(40)]))
    assert labels.tolist() == [row % 2 for row in range(40)]
    assert (found.classes, found.record.source, found.record.shape) == (NAMES, "dataset", (1, 8, 8))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (lambda x: x.double(), (1, 8, 8)),
        (lambda x: x.half(), (1, 8, 8)),
        (lambda x: x[0], (1, 8, 8)),
        (lambda x: x.numpy(), (1, 8, 8)),
        (lambda x: torch.cat([x, 1 - x, x / 2]), (3, 8, 8)),
        (lambda x: x.clone().requires_grad_(), (1, 8, 8)),
    ],
)
def test_tensors_and_arrays_of_every_floating_type_are_taken(
    kind: Callable[[Any], Any], shape: tuple[int, ...]
) -> None:
    made = Made()
    found = cohort([(kind(made[row][0]), made[row][1]) for row in range(40)])
    assert found.record.shape == shape
    expected = torch.as_tensor(kind(made[3][0])).detach().float().reshape(shape)
    assert torch.equal(found.batch([3])[0][0], expected)


@pytest.mark.parametrize("label", [1, True, np.int64(1), np.uint8(1), torch.tensor(1), torch.tensor([1]), np.array(1)])
def test_labels_of_every_whole_type_are_taken(label: Any) -> None:
    assert cohort(Made(changed={1: (torch.rand(1, 8, 8), label)})).cases[1].label == 1


def test_volumes_are_taken_as_input_dims_says() -> None:
    volumes = Input(dims=3, intensity=Intensity(mode="ready"))
    assert cohort(Made(dims=3), spec(input=volumes)).record.shape == (1, 8, 8, 8)


def test_findings_are_numbers_a_finding_and_unclear_ones_follow_the_protocol() -> None:
    names = ("Effusion", "Mass")
    task = Task(kind="multilabel", classes=names, uncertain="exclude", missing="absent")
    rows = [[row % 2, row // 2 % 2] for row in range(40)]
    labels = torch.tensor(rows, dtype=torch.float32)
    labels[4, 0], labels[8, 1] = -1.0, float("nan")
    made = TensorDataset(torch.rand(40, 1, 8, 8), labels)
    found = cohort(made, spec(task=task, endpoints=BOTH), classes=None)
    assert (len(found.cases), len(found.record.excluded)) == (39, 1)
    assert found.cases[7].label == ()
    assert "data.unclear_labels" in codes(found)


# --- splits and patients -----------------------------------------------------------------------------------------


def test_splits_are_made_by_patient_where_none_are_given() -> None:
    found = cohort(Made(), patients=patients())
    assert (found.record.splits_from, found.record.grouped_by) == ("made", "patient")
    by_patient: dict[str, set[str]] = {}
    for case in found.cases:
        by_patient.setdefault(case.patient, set()).add(case.split)
    assert [len(splits) for splits in by_patient.values()] == [1] * 10


def test_given_splits_are_kept_under_every_usual_name() -> None:
    named = ["train"] * 20 + ["validation"] * 10 + ["TEST"] * 10
    parts = ConcatDataset([Made(20, seed=1), Made(10, seed=2), Made(10, seed=3)])
    assert sizes(cohort(parts, splits=named)) == (20, 10, 10)


def test_no_patient_name_is_in_the_record_and_all_are_known_to_the_guard() -> None:
    found = cohort(Made(), patients=patients(), attributes={"ward": ["Ward of Dr Roe"] * 40, "site": ["A", "B"] * 20})
    assert not [name for name in (b"Doe", b"Roe") if name in digest(found)]
    assert "Doe 3" in found.identifiers["identifier"]
    assert {case.attributes["site"] for case in found.cases} == {"A", "B"}


def test_missing_patients_are_counted_and_numbers_of_a_table_are_names() -> None:
    named = [float(row // 2) if row > 3 else float("nan") for row in range(40)]
    found = cohort(Made(), patients=named)
    assert found.record.unnamed == 4
    assert "data.missing_patients" in codes(found)
    assert found.cases[10].patient == cohort(Made(), patients=[str(row // 2) for row in range(40)]).cases[10].patient
    assert "data.no_patients" in codes(cohort(Made()))


def test_the_same_dataset_in_two_splits_is_refused() -> None:
    again = ConcatDataset([Made(20), Made(20)])
    with pytest.raises(DataError, match="not disjoint") as caught:
        cohort(again, splits=["train"] * 20 + ["test"] * 20)
    assert "items 0, 1, 2" in str(caught.value)


def test_one_patient_in_two_splits_is_refused() -> None:
    with pytest.raises(DataError, match="same patient"):
        cohort(Made(), patients=["Doe"] * 2 + [f"P{n}" for n in range(38)], splits=["train", "test"] * 20)


# --- the same again, and another ---------------------------------------------------------------------------------


def test_the_same_dataset_is_the_same_cohort_and_any_change_is_another() -> None:
    plain = digest(cohort(Made(), patients=patients()))
    assert digest(cohort(Made(), patients=patients())) == plain
    image = Made()[5][0].clone()
    image[0, 0, 0] += 1e-4
    assert digest(cohort(Made(changed={5: (image, 1)}), patients=patients())) != plain
    assert digest(cohort(Made(changed={5: (Made()[5][0], 0)}), patients=patients())) != plain
    assert digest(cohort(Made(), patients=["Roe", *patients()[1:]])) != plain
    assert digest(cohort(Made(), patients=patients(), key=b"another key of sixteen bytes")) != plain


def test_an_item_that_changes_each_time_is_refused() -> None:
    def drawn() -> tuple[torch.Tensor, int]:
        return torch.rand(1, 8, 8), 0

    with pytest.raises(DataError, match=r"item \d+ .* another input each time .* augmentation"):
        cohort(Made(changed=dict.fromkeys(range(40), drawn)))


# --- what is refused ---------------------------------------------------------------------------------------------


def stopped() -> Any:
    raise KeyError("scan of Jane Doe")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ((torch.full((1, 8, 8), 1.5), 0), r"input in \[1.5, 1.5\]; expected \[0, 1\].*normaliser"),
        ((torch.randn(1, 8, 8) - 3, 0), r"expected \[0, 1\]"),
        ((torch.zeros(1, 8, 8, dtype=torch.uint8), 0), "uint8; expected floating point"),
        ((torch.rand(8), 0), r"input of shape \(8,\)"),
        ((torch.rand(2, 8, 8), 0), "1 or 3 channels"),
        ((torch.full((1, 8, 8), float("nan")), 0), "64 values that are not finite"),
        ((torch.full((1, 8, 8), 0.5), 0), "is constant"),
        ((torch.rand(1, 9, 9), 0), "is 9 x 9, most are 8 x 8; have the dataset resample all"),
        (("path/of/Jane_Doe.png", 0), "a str; expected a tensor"),
        ((torch.rand(1, 8, 8), 2), "label 2; there are 2 classes, 0 to 1"),
        ((torch.rand(1, 8, 8), -1), "label -1"),
        ((torch.rand(1, 8, 8), 1.0), "label float; expected one class as a whole number"),
        ((torch.rand(1, 8, 8), "Jane Doe"), "label str"),
        ((torch.rand(1, 8, 8), torch.tensor([0, 1])), r"label torch.int64 of shape \(2,\)"),
        ((torch.rand(1, 8, 8), None), "label NoneType"),
        ({"image": 0, "label": 1}, r"dict of 2; expected \(input, label\)"),
        ((torch.rand(1, 8, 8), 0, "meta"), "tuple of 3"),
        (stopped, r"own code stopped with KeyError at test_dataset.py, line \d+, in stopped"),
    ],
)
def test_an_item_that_is_no_case_is_refused_with_its_number_and_without_its_text(item: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        cohort(Made(changed={17: item}))
    assert "1 of 40 cases" in str(caught.value)
    assert str(caught.value).endswith("in the dataset these are the items 17")
    assert "Doe" not in str(caught.value)


def test_unusable_items_are_left_out_on_record_where_the_protocol_says_so() -> None:
    lenient = spec(input=Input(intensity=Intensity(mode="ready"), unusable="exclude"))
    found = cohort(Made(changed={17: (torch.rand(1, 8, 8), 9), 18: (torch.ones(1, 8, 8), 0)}), lenient)
    assert len(found.cases) == 38
    assert sorted(case.reason for case in found.record.excluded)[1].startswith("is constant")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"classes": None}, "no names"),
        ({"classes": ("a", "a")}, "twice"),
        ({"classes": "ab"}, "list of names"),
        ({"patients": ["P1"] * 39}, "patients: expected 40, one for each item of the dataset, found 39"),
        ({"patients": "P1"}, "patients: expected one for each of the 40"),
        ({"patients": [("P", 1)] * 40}, "patients: expected a text"),
        ({"patients": ["P1"] * 40}, "one and the same patient"),
        ({"splits": ["train"] * 41}, "splits: expected 40"),
        ({"splits": ["holiday"] * 40}, "splits: expected train, val or test"),
        ({"attributes": {"sex": ["F"]}}, "attributes"),
    ],
)
def test_what_is_said_beside_a_dataset_must_fit_it(said: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        cohort(Made(), **said)


def test_classes_of_the_protocol_hold_and_another_order_is_refused() -> None:
    stated = spec(task=Task(classes=NAMES))
    assert cohort(Made(), stated, classes=None).classes == NAMES
    with pytest.raises(DataError, match="must agree"):
        cohort(Made(), stated, classes=NAMES[::-1])


def test_a_stream_and_an_empty_dataset_are_refused() -> None:
    with pytest.raises(DataError, match="__len__ and __getitem__"):
        cohort(iter([]))
    with pytest.raises(DataError, match="is empty"):
        cohort([])


def test_a_protocol_for_files_takes_no_dataset_and_one_for_datasets_no_file(tmp_path: Any) -> None:
    with pytest.raises(ProtocolError, match="mode: ready"):
        cohort(Made(), protocol())
    folder = class_folders(tmp_path)
    with pytest.raises(DataError, match="takes what a dataset in Python gives"):
        load_cohort(folder, spec(), key=KEY)
    with pytest.raises(DataError, match="takes what a dataset in Python gives"):
        read_single(given_cases([next(folder.rglob("*.png"))], READY)[0], READY, (1, 12, 10))


@pytest.mark.parametrize("more", [{"size": (8, 8)}, {"channels": "gray"}])
def test_ready_inputs_are_not_changed_by_the_protocol(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="as they are given"):
        Input(intensity=Intensity(mode="ready"), **more)


def test_near_copies_are_looked_for_as_in_files() -> None:
    image = Made()[0][0]
    near = (image * 0.999).clamp(0, 1)
    limits = spec(splits=Splits(near_duplicate_bits=16))
    with pytest.raises(DataError, match="looks like a copy"):
        cohort(
            ConcatDataset([Made(20), Made(20, {0: (near, 0)}, seed=4)]), limits, splits=["train"] * 20 + ["test"] * 20
        )
