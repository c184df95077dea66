"""A table in each split folder, as image folders of Hugging Face's `datasets` have: one cohort with those splits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from data_helpers import KEY, class_folders, manifest, png, protocol, sizes

from medharden.data.cohort import load_cohort
from medharden.data.sources.listing import list_source
from medharden.errors import DataError
from medharden.protocol import Endpoints, Margin, Task

COUNTS = {"train": 12, "validation": 8, "test": 10}


def folders(root: Path, form: str = "csv", below: str = "{n:04d}.png", counts=COUNTS, **more) -> dict[str, list[dict]]:
    """Pictures of the same names in each split folder, with a table beside them."""
    found = {}
    for k, (split, count) in enumerate(counts.items()):
        rows = []
        for n in range(count):
            png(root / split / below.format(n=n), 1000 * k + n)
            row = {"file_name": below.format(n=n), "label": "ab"[n % 2], "patient_id": f"{split}{n}"}
            rows.append(row | {name: f(n) for name, f in more.items()})
        write(root / split, rows, form)
        found[split] = rows
    return found


def write(folder: Path, rows: list[dict], form: str = "csv") -> None:
    if form == "csv":
        manifest(folder, rows, "metadata.csv")
    else:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("below", ["{n:04d}.png", "images/deep/{n:04d}.png", "./{n:04d}.png"])
def test_a_table_in_each_split_folder_is_one_cohort_with_those_splits(tmp_path, form, below):
    folders(tmp_path, form, below)
    (tmp_path / "README.md").write_text("---\n")
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert sizes(cohort) == (12, 8, 10)
    assert cohort.classes == ("a", "b")
    assert len({case.patient for case in cohort.cases}) == 30
    listing = list_source(tmp_path, protocol(), str, 2**20)
    assert not listing.problems
    words = {"train": "train", "validation": "val", "test": "test"}
    for entry in listing.entries:
        place, _, name = entry.text.partition("/")
        assert entry.split == words[place]
        assert entry.label == "ab"[int(Path(name).stem) % 2]
        assert entry.path == tmp_path / entry.text


def test_findings_in_columns_are_read_from_each_split(tmp_path):
    cells = {"Edema": lambda n: n % 2, "Mass": lambda n: n // 2 % 2}
    folders(tmp_path, **cells)
    task = Task(kind="multilabel", classes=("Edema", "Mass"))
    margins = (Margin(metric="accuracy", margin=0.1), Margin(metric="recall", margin=0.1))
    spec = protocol(task=task, endpoints=Endpoints(noninferiority=margins))
    cohort = load_cohort(tmp_path, spec, key=KEY)
    assert sizes(cohort) == (12, 8, 10)
    assert Counter(case.label for case in cohort.cases)[(0, 1)] == 3 + 2 + 2


def test_one_split_folder_alone_says_nothing_of_splits(tmp_path):
    folders(tmp_path, counts={"train": 40})
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert sum(sizes(cohort)) == 40
    assert min(sizes(cohort)) > 0


def test_a_row_is_of_its_own_folder_and_a_file_that_lacks_there_is_not_taken_from_another(tmp_path):
    folders(tmp_path)
    (tmp_path / "test" / "0003.png").unlink()
    with pytest.raises(DataError, match="1 of 30 cases") as caught:
        load_cohort(tmp_path, protocol(), key=KEY)
    assert [problem.reason for problem in caught.value.problems] == ["is listed, but its file is missing"]


def test_a_table_that_lacks_or_contradicts_its_folder_is_told(tmp_path):
    rows = folders(tmp_path)
    write(tmp_path / "test", [row | {"split": "train"} for row in rows["test"]])
    with pytest.raises(DataError, match="10 rows of the table in one split folder name another split"):
        load_cohort(tmp_path, protocol(), key=KEY)
    write(tmp_path / "test", [{"file_name": row["file_name"]} for row in rows["test"]])
    with pytest.raises(DataError, match=r"2 of 3 split folders have a table .* no column that is plainly the label"):
        load_cohort(tmp_path, protocol(), key=KEY)
    (tmp_path / "test" / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"2 of 3 split folders have a table .* no CSV or JSONL file there"):
        load_cohort(tmp_path, protocol(), key=KEY)


def test_class_folders_below_splits_stay_classes_beside_tables_without_labels(tmp_path):
    for k, split in enumerate(COUNTS):
        class_folders(tmp_path / split, 6)
        for n, path in enumerate(sorted((tmp_path / split).rglob("*.png"))):
            png(path, 100 * k + n)
        manifest(tmp_path / split, [{"file_name": "cat/0.png", "note": "x"}], "metadata.csv")
    cohort = load_cohort(tmp_path, protocol(), key=KEY)
    assert (cohort.classes, sizes(cohort)) == (("cat", "dog"), (12, 12, 12))
