"""Series from a DICOMweb server: the same cohort as from files, each retrieved once, and every failure told."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from data_helpers import KEY, dicom, manifest, protocol
from dicom_volumes import FRAMES, positions, series
from dicomweb_server import Archive, serving

from medharden.cli.pipeline import with_findings
from medharden.data.cohort import Cohort, load_cohort
from medharden.data.dicomweb.address import TOKEN, address_of
from medharden.data.dicomweb.retrieving import retrieved
from medharden.data.pseudonyms import pseudonym
from medharden.data.store.cache import cached_views, remove_views
from medharden.errors import DataError
from medharden.protocol import Columns, Input, Protocol

VOLUMES = protocol(input=Input(dims=3, size=(6, 6, 6)), columns=Columns(path="series_uid", label="finding"))
COUNT = 6


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of series and a table that names them by UID."""
    root = tmp_path_factory.mktemp("export")
    rows = []
    for n in range(COUNT):
        frames = np.random.default_rng(n).integers(0, 900, FRAMES.shape).astype(np.int16)
        series(root / "files" / f"s{n}", frames, positions(7), uid=f"2.25.1{n}", PatientID=f"P{n}")
        rows.append({"series_uid": f"2.25.1{n}", "finding": "ab"[n % 2], "patient": f"P{n}"})
    manifest(root, rows, "labels.csv")
    return root


@pytest.fixture
def archive(export: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # this machine is asked without a proxy
    with serving(export / "files") as found:
        yield found


def cohort(table: Path, archive: Archive, spec: Protocol = VOLUMES, cache: Path | None = None, **limits: int) -> Cohort:
    with retrieved(table, spec, address_of(archive.url), key=KEY, cache=cache, wait=0.0, **limits) as found:
        return with_findings(load_cohort(found.data, spec, key=KEY), found.noted)


def failure(export: Path, archive: Archive, cache: Path | None = None, **limits: int) -> str:
    with pytest.raises(DataError) as caught:
        cohort(export / "labels.csv", archive, cache=cache, **limits)
    message = str(caught.value)
    for secret in ("2.25.1", "P0", "127.0.0.1", "secret-token", "Traceback"):
        assert secret not in message
    return message


def test_the_cohort_is_that_of_the_same_files_and_the_record_names_no_server(export, archive, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret-token")
    got, local = cohort(export / "labels.csv", archive), load_cohort(export / "labels.csv", VOLUMES, key=KEY)
    assert sorted(case.pixels for case in got.cases) == sorted(case.pixels for case in local.cases)
    assert {(c.patient, c.label) for c in got.cases} == {(c.patient, c.label) for c in local.cases}
    finding = next(f for f in got.record.findings if f.code == "data.dicomweb")
    assert finding.message.startswith(f"{COUNT} series")
    assert "127.0.0.1" not in repr(got.record)
    assert "secret-token" not in repr(got.record)
    assert archive.tokens == {"Bearer secret-token"}
    assert pseudonym(KEY, "case", "2.25.10") in {case.case for case in got.cases}
    assert not list(tmp_path.iterdir())


def test_without_a_token_nothing_is_sent_whatever_netrc_says(export, archive, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret-token\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cohort(export / "labels.csv", archive)
    assert archive.tokens == {""}


def test_a_cache_is_private_and_gives_the_same_record_without_asking_again(export, archive, tmp_path):
    first = cohort(export / "labels.csv", archive, cache=tmp_path / "kept")
    before = archive.asked.copy()
    second = cohort(export / "labels.csv", archive, cache=tmp_path / "kept")
    assert archive.asked == before
    assert first.record == second.record == cohort(export / "labels.csv", archive).record
    (store,) = cached_views(tmp_path / "kept")
    assert (store.cases, store.input) == (COUNT, {})
    held = list((tmp_path / "kept" / store.name).rglob("*"))
    assert {stat.S_IMODE(p.lstat().st_mode) for p in held if p.is_dir()} == {0o700}
    assert {stat.S_IMODE(p.lstat().st_mode) for p in held if p.is_file()} == {0o600}
    assert not [p for p in held if p.name.startswith(".") or p.suffix == ".csv"], "labels stay where they are"
    assert "127" not in store.name
    assert remove_views(tmp_path / "kept", ()) == 1
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("harm", ["a file is gone", "a file is torn", "no list", "another file"])
def test_a_series_that_is_not_whole_is_retrieved_again_and_alone(export, archive, tmp_path, harm):
    whole = cohort(export / "labels.csv", archive, cache=tmp_path)
    folder = next(tmp_path.glob("dicomweb-*/2.25.13"))
    file = sorted(folder.glob("*.dcm"))[2]
    if harm == "a file is torn":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "no list":
        (folder / "series.json").unlink()
    else:
        file.unlink()
    if harm == "another file":
        file.symlink_to(sorted(folder.glob("*.dcm"))[0])
    archive.asked.clear()
    assert cohort(export / "labels.csv", archive, cache=tmp_path).record == whole.record
    assert {k: n for k, n in archive.asked.items() if k.startswith("retrieve")} == {"retrieve 2.25.13": 1}


def test_a_run_that_broke_off_goes_on_with_what_lacks(export, archive, tmp_path):
    archive.wrong = lambda path: 500 if "2.25.14" in path else None
    assert "status 500" in failure(export, archive, tmp_path)
    assert archive.asked["retrieve 2.25.13"] == 1
    archive.wrong = lambda path: None
    cohort(export / "labels.csv", archive, cache=tmp_path)
    assert {n for k, n in archive.asked.items() if k.startswith("retrieve")} == {1}
    assert not list(tmp_path.glob("*/.*"))


def test_a_moment_of_trouble_is_waited_out(export, archive):
    left = iter([503, 429])
    archive.wrong = lambda path: next(left, None)
    archive.cut = 2
    assert len(cohort(export / "labels.csv", archive).cases) == COUNT


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, f"no token: set {TOKEN}"),
        (403, "refuses access"),
        (503, "status 503, 3 times"),
        (400, "status 400"),
        (302, "sends to another address, which is not followed"),
    ],
)
def test_what_the_server_refuses_is_told_at_once(export, archive, status, words):
    asked = []
    archive.wrong = lambda path: asked.append(path) or status
    assert words in failure(export, archive)
    assert len(asked) == (3 if status == 503 else 1)


def test_a_token_that_is_refused_is_told_by_its_variable(export, archive, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret-token")
    archive.wrong = lambda path: 401
    assert f"with the token in {TOKEN}" in failure(export, archive)


def test_series_that_are_not_there_are_all_named_by_row_and_pseudonym(export, archive, tmp_path):
    del archive.series["2.25.12"]
    archive.wrong = lambda path: 404 if "/series/2.25.15" in path else None
    message = failure(export, archive, tmp_path)
    assert f"2 of {COUNT} series can't be retrieved" in message
    assert f"case {pseudonym(KEY, 'case', '2.25.12')}, row 4: is a series that the server does not have" in message
    assert f"case {pseudonym(KEY, 'case', '2.25.15')}, row 7: is not there" in message


def replaced(uid: str, parts: list[bytes]) -> list[bytes]:
    return parts[:-1] + parts[:1] if uid == "2.25.11" else parts


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (lambda uid, parts: parts[:-2], "has 7 instances by the server's search, and 5 came"),
        (lambda uid, parts: [b"<html>no image</html>"], "is answered with what is no DICOM"),
        (lambda uid, parts: [], "is answered with what is no DICOM|has 7 instances"),
        (replaced, "is answered with an instance twice"),
        (lambda uid, parts: [p.replace(uid.encode(), b"2.25.99") for p in parts], "an instance that is none of the"),
    ],
)
def test_an_answer_that_is_not_the_series_is_refused_and_nothing_of_it_kept(export, archive, tmp_path, parts, words):
    archive.parts = parts
    message = failure(export, archive, tmp_path)
    assert any(part in message for part in words.split("|"))
    assert not list(tmp_path.glob("*/2.25.11"))
    assert not list(tmp_path.glob("*/.*"))


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[1, 2]", b'[{"0020000E": 3}]', b"[" * 10_000])
def test_a_search_that_answers_with_something_else_is_told(export, archive, body):
    archive.found = body
    assert "is no DICOM JSON" in failure(export, archive)


def test_bytes_are_bounded_a_series_and_in_all(export, archive, tmp_path):
    size = sum(map(len, archive.series["2.25.10"].values()))
    assert "has more bytes than a series may have" in failure(export, archive, tmp_path, max_decoded=size - 1)
    assert "in all than one command retrieves" in failure(export, archive, tmp_path, most_bytes=3 * size)
    assert 1 <= len(list(tmp_path.glob("*/2.25.*"))) < COUNT


def test_a_server_that_is_not_there_is_told(export, archive):
    archive.url = "http://127.0.0.1:9/dicom-web"
    assert "connection to the DICOMweb server can't be made" in failure(export, archive)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://pacs.example/dicom-web", "neither https nor"),
        ("http://127.0.0.1.example/dicom-web", "neither https nor"),
        ("ftp://127.0.0.1/", "neither https nor"),
        ("https://me:hunter2@pacs.example/dicom-web", f"set {TOKEN}"),
        ("https://pacs.example/dicom-web?series=1", "holds a query"),
        ("https:///dicom-web", "is no address"),
        ("https://pacs.example:port/", "is no address"),
        ("https://pacs.example/\ndicom-web", "is no address"),
        ("pacs", "is no address"),
    ],
)
def test_an_address_that_can_not_be_asked_safely_is_refused(url, words):
    with pytest.raises(DataError, match="--dicomweb") as caught:
        address_of(url)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_token_that_would_end_a_header_is_refused_and_not_shown(monkeypatch):
    monkeypatch.setenv(TOKEN, "secret\r\nX-Evil: 1")
    with pytest.raises(DataError, match=TOKEN) as caught:
        address_of("https://pacs.example/dicom-web")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv(TOKEN, "secret-token")
    assert "secret" not in repr(address_of("https://pacs.example/dicom-web"))


@pytest.mark.parametrize("written", ["..", "../2.25.1", "1.2/3", "s0", "1" * 65, "1..2", ".", "/etc", "１.2"])
def test_what_is_no_uid_makes_neither_path_nor_request(archive, tmp_path, written):
    manifest(tmp_path, [{"series_uid": u, "finding": "a"} for u in ("2.25.10", written)], "labels.csv")
    with pytest.raises(DataError, match=r"1 rows hold something else \(3\)"):
        cohort(tmp_path / "labels.csv", archive, cache=tmp_path / "kept")
    assert not archive.asked


def test_pictures_are_series_of_one_instance(tmp_path, monkeypatch):
    rows = []
    for n in range(6):
        stored = np.random.default_rng(n).integers(0, 900, (9, 8)).astype(np.uint16)
        uids = {"SOPInstanceUID": f"2.25.3{n}.1", "SeriesInstanceUID": f"2.25.3{n}", "StudyInstanceUID": "2.25.4"}
        dicom(tmp_path / "files" / f"{n}.dcm", stored, **uids)
        rows.append({"series_uid": f"2.25.3{n}", "finding": "ab"[n % 2], "patient": n})
    manifest(tmp_path, rows, "labels.csv")
    spec = protocol(columns=VOLUMES.columns, input=Input(size=(8, 8)))
    with serving(tmp_path / "files") as archive:
        assert len(cohort(tmp_path / "labels.csv", archive, spec).cases) == 6
        archive.series["2.25.31"]["2.25.31.2"] = archive.series["2.25.31"]["2.25.31.1"].replace(
            b"2.25.31.1", b"2.25.31.2"
        )
        with pytest.raises(DataError, match="row 3: is a series of 2 instances, expected one a case"):
            cohort(tmp_path / "labels.csv", archive, spec)
