"""Manifests whose paths are absolute ones of another machine: used where all are found, else told in one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_helpers import KEY, codes, manifest, png, protocol
from test_series import SPEC, cohort_folder

from medharden.data.cohort import load_cohort
from medharden.errors import DataError

FORMS = {
    "posix": "/home/anna/data/{}",
    "windows": "C:\\data\\{}",
    "windows slashes": "d:/Data/{}",
    "share": "\\\\server\\share\\data\\{}",
}


def written(form: str, text: str) -> str:
    return FORMS[form].format(text.replace("/", "\\") if "\\" in FORMS[form] else text)


def rows_of(root: Path, count: int = 24) -> list[dict[str, object]]:
    texts = [f"images/p{n // 2}/x{n}.png" for n in range(count)]
    for n, text in enumerate(texts):
        png(root / text, n)
    return [{"path": text, "label": "ab"[n % 2], "patient": n} for n, text in enumerate(texts)]


def said(root: Path, rows: list[dict[str, object]], **fields: object) -> str:
    with pytest.raises(DataError) as caught:
        load_cohort(manifest(root, rows), protocol(**fields), key=KEY)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.removesuffix(".png")])
def test_paths_of_another_machine_are_used_where_each_lies_below_the_folder(tmp_path, form, every, change):
    rows = rows_of(tmp_path)
    straight = load_cohort(manifest(tmp_path, rows), protocol(), key=KEY)
    foreign = [r | {"path": written(form, change(r["path"]))} if n % every == 0 else r for n, r in enumerate(rows)]
    cohort = load_cohort(manifest(tmp_path, foreign), protocol(), key=KEY)
    assert [(c.case, c.label, c.pixels) for c in cohort.cases] == [(c.case, c.label, c.pixels) for c in straight.cases]
    told = next(f.message for f in cohort.record.findings if f.code == "data.paths_found")
    assert f"{24 // every} as an absolute path of another machine, by the last 3 parts of it" in told


@pytest.mark.parametrize("form", FORMS)
def test_one_message_says_how_many_are_missing_and_where_the_others_lie(tmp_path, form):
    rows = rows_of(tmp_path)
    foreign = [r | {"path": written(form, r["path"])} for r in rows]
    for n in range(5):
        foreign[n]["path"] = written(form, f"doe^jane/scan{n}.png")
    told = said(tmp_path, foreign)
    assert "24 of 24 rows" in told
    assert "19 of these lie below it by the last 3 parts, 5 have none" in told
    assert told.count("\n") == 0
    assert not any(word in told.lower() for word in ("jane", "anna", "x7", "server"))


def test_a_few_among_good_rows_are_told_once_and_not_row_by_row(tmp_path):
    rows = rows_of(tmp_path)
    foreign = [r | {"path": f"E:\\old\\{n}.png"} if n > 11 else r for n, r in enumerate(rows)]
    foreign[0]["path"] = "images/none.png"
    told = said(tmp_path, foreign)
    assert "12 of 24 rows" in told
    assert "12 have none" in told
    assert "13 of 24 cases can't be used" in told
    assert len([line for line in told.splitlines() if "is listed, but" in line]) == 1
    assert len([line for line in told.splitlines() if "leaves the manifest" in line]) == 1
    left = load_cohort(
        manifest(tmp_path, foreign),
        protocol(input=protocol().input.model_copy(update={"unusable": "exclude"})),
        key=KEY,
    )
    assert (len(left.cases), "data.foreign_paths" in codes(left)) == (11, True)


def test_two_rows_never_get_one_file_and_a_namesake_elsewhere_is_not_taken(tmp_path):
    rows = rows_of(tmp_path)
    png(tmp_path / "top.png", 99)
    pair = [{"path": f"/old/{side}/top.png", "label": "a", "patient": side} for side in ("left", "right")]
    assert "2 fit several files, or one that another row fits too" in said(tmp_path, [*rows, *pair])
    moved = {"path": "/old/test/x1.png", "label": "a", "patient": "z"}
    assert "1 have a file of their name in other folders alone" in said(tmp_path, [*rows, moved])
    climbing = {"path": "/old/../images/p0/x1.png", "label": "a", "patient": "z"}
    assert "1 have none" in said(tmp_path, [*rows, climbing])


def test_a_file_that_is_there_outside_the_folder_is_not_replaced_by_its_namesake(tmp_path):
    root = tmp_path / "data"
    rows = rows_of(root)
    png(tmp_path / "other" / "images/p0/x0.png", 77)
    rows[0]["path"] = str(tmp_path / "other" / "images/p0/x0.png")
    assert "1 are there, outside of it" in said(root, rows)


def test_folders_of_series_are_found_below_the_folder_too(tmp_path):
    texts = list(cohort_folder(tmp_path))
    rows = [{"path": f"Z:\\pacs\\{text}".replace("/", "\\"), "label": text[0]} for text in texts]
    cohort = load_cohort(manifest(tmp_path, rows), protocol(input=SPEC), key=KEY)
    assert cohort.inputs.shape == (16, 1, 6, 5, 4)
