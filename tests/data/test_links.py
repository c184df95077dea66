"""Links that leave the folder of the data: refused, unless it is said that they are followed; circles end."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from command import assert_clear, medharden
from data_helpers import KEY, class_folders, codes, manifest, png, protocol

from medharden.data import given_cases, load_cohort
from medharden.errors import DataError
from medharden.links import links_followed, walked
from medharden.protocol import Input


def linked(tmp_path: Path) -> Path:
    """Two classes, of which one is a link to a folder elsewhere, and one file of the other another link."""
    class_folders(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog").mkdir(parents=True)
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    for path in sorted((tmp_path / "elsewhere" / "dog").iterdir()):
        (tmp_path / "data" / "dog" / path.name).symlink_to(path)
    return tmp_path / "data"


def test_links_that_leave_the_folder_are_refused_unless_they_are_to_be_followed(tmp_path: Path) -> None:
    root = linked(tmp_path)
    with pytest.raises(DataError, match="leaves the data"):
        load_cohort(root, protocol(), key=KEY)
    with links_followed():
        cohort = load_cohort(root, protocol(), key=KEY)
    assert len(cohort.cases) == 20
    assert "data.links_followed" in codes(cohort)
    told = next(f for f in cohort.record.findings if f.code == "data.links_followed")
    assert told.message.startswith("20 files lie behind links")
    assert str(tmp_path) not in told.message
    with pytest.raises(DataError, match="leaves the data"):
        load_cohort(root, protocol(), key=KEY)


def test_a_cohort_without_such_links_is_the_same_either_way(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "dog")
    plain = load_cohort(tmp_path, protocol(), key=KEY)
    assert "data.links_followed" not in codes(plain)
    assert len(plain.cases) == 20, "linked folders are not entered"


def test_rows_of_a_manifest_follow_links_too_but_never_a_path_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    rows = []
    for n in range(20):
        png(tmp_path / "elsewhere" / f"{n}.png", n)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{n}.png").symlink_to(tmp_path / "elsewhere" / f"{n}.png")
        rows.append({"path": f"{n}.png", "label": "ab"[n % 2]})
    manifest(tmp_path / "data", rows)
    with pytest.raises(DataError, match="is a link that leaves the manifest"):
        load_cohort(tmp_path / "data", protocol(), key=KEY)
    with links_followed():
        assert len(load_cohort(tmp_path / "data", protocol(), key=KEY).cases) == 20
        rows[0]["path"] = "../elsewhere/0.png"
        manifest(tmp_path / "data", rows)
        with pytest.raises(DataError, match="1 of 20 cases can't be used"):
            load_cohort(tmp_path / "data", protocol(), key=KEY)


def test_links_in_a_circle_end_and_those_that_lead_nowhere_are_no_files(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    (root / "cat" / "again").symlink_to(root / "cat")
    (root / "dog" / "self").symlink_to(root / "dog" / "self")
    (root / "dog" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "up").symlink_to(tmp_path)
    with links_followed():
        assert len(list(walked(root))) == 3
        assert len(list(walked(tmp_path))) == 4
        with pytest.raises(DataError) as caught:
            load_cohort(root, protocol(), key=KEY)
        assert len(caught.value.problems) == 2
        assert all("link that leaves" in problem.reason for problem in caught.value.problems)
        assert len(given_cases([root / "cat"], Input())) == 10, "each folder is entered once"


def test_the_command_follows_links_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    root = linked(tmp_path)
    refused = medharden("inspect", "--data", root, cwd=tmp_path)
    assert_clear(refused, 1)
    assert "is a link that leaves" in refused.stdout
    done = medharden("--follow-links", "inspect", "--data", root, cwd=tmp_path)
    assert_clear(done, 0)
    assert "20 files lie behind links" in " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("cat/up", ".."),
        ("cat/whole", "../.."),
        ("cat/deep/up", "../.."),
        ("all", "."),
        ("above", ".."),
        ("cat/in", "../dog"),
    ],
)
def test_a_link_back_into_the_data_neither_goes_round_nor_gives_a_file_a_second_label(tmp_path, place, target, follow):
    root = class_folders(tmp_path / "data")
    plain = load_cohort(root, protocol(), key=KEY)
    (root / place).parent.mkdir(exist_ok=True)
    (root / place).symlink_to(target)
    (tmp_path / "beside").mkdir()
    png(tmp_path / "beside" / "x.png", 7)
    with links_followed() if follow else nullcontext():
        cohort = load_cohort(root, protocol(), key=KEY)
    assert [(c.case, c.label, c.pixels) for c in cohort.cases] == [(c.case, c.label, c.pixels) for c in plain.cases]
    assert ("data.links_back" in codes(cohort)) == (follow or "/" not in place)


def test_folders_elsewhere_that_link_to_each_other_are_entered_once(tmp_path):
    root = class_folders(tmp_path / "data")
    png(tmp_path / "more" / "1" / "x.png", 77)
    (tmp_path / "more" / "1" / "other").symlink_to("../2")
    png(tmp_path / "more" / "2" / "y.png", 78)
    (tmp_path / "more" / "2" / "other").symlink_to("../1")
    (root / "cat" / "more").symlink_to(tmp_path / "more")
    with links_followed():
        assert len(load_cohort(root, protocol(), key=KEY).cases) == 22


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to"])
def test_one_file_under_two_names_is_one_case_and_under_two_classes_none(tmp_path, make):
    root = class_folders(tmp_path / "data")
    plain = load_cohort(root, protocol(), key=KEY)
    getattr(root / "cat" / "zz.png", make)(root / "cat" / "3.png")
    cohort = load_cohort(root, protocol(), key=KEY)
    assert [c.case for c in cohort.cases] == [c.case for c in plain.cases]
    told = next(f for f in cohort.record.findings if f.code == "data.links_back")
    assert told.message == "1 paths lead to files that have another path too; each file is one case."
    getattr(root / "dog" / "zz.png", make)(root / "cat" / "4.png")
    with pytest.raises(DataError, match="one file under 2 paths, of different classes") as caught:
        load_cohort(root, protocol(), key=KEY)
    assert len(caught.value.problems) == 2
