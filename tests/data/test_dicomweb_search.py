"""A search of a DICOMweb server in place of a table, rows that name studies, and servers that misbehave under TLS."""

from __future__ import annotations

import datetime
import ssl
import time
from pathlib import Path

import numpy as np
import pytest
import trustme
from data_helpers import KEY, manifest, protocol
from dicom_volumes import FRAMES, positions, series
from dicomweb_server import Archive, serving

from medharden.data.cohort import Cohort, load_cohort
from medharden.data.dicomweb.address import TOKEN, address_of
from medharden.data.dicomweb.query import query_of
from medharden.data.dicomweb.retrieving import retrieved
from medharden.data.dicomweb.server import Server
from medharden.data.store.cache import cached_views
from medharden.errors import DataError
from medharden.protocol import Columns, Input, Protocol, Volume

COUNT = 8
LABELLED = Columns(label="BodyPartExamined")


def spec(columns: Columns = LABELLED, **volume: str) -> Protocol:
    return protocol(input=Input(dims=3, size=(6, 6, 6), volume=Volume(**volume)), columns=columns)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Series of eight studies, of two body parts, each beside a short series in a study of two."""
    root = tmp_path_factory.mktemp("export")
    for n in range(COUNT):
        frames = np.random.default_rng(n).integers(0, 900, FRAMES.shape).astype(np.int16)
        said = {"PatientID": f"P{n}", "PatientName": f"Doe^{n}", "StudyInstanceUID": f"2.25.8{n}", "Modality": "CT"}
        said["BodyPartExamined"] = ("HEAD", "CHEST")[n % 2]
        series(root / f"s{n}", frames, positions(7), uid=f"2.25.1{n}", **said)
        if n < 2:
            short = said | {"Modality": "PT", "BodyPartExamined": "ABDOMEN"}
            series(root / f"short{n}", frames[:3], positions(3), uid=f"2.25.3{n}", **short)
    return root


@pytest.fixture
def archive(export: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(TOKEN, raising=False)
    with serving(export) as found:
        found.page = 3
        yield found


def searched(archive: Archive, query: str, given: Protocol, cache: Path | None = None) -> Cohort:
    data = Path("dicomweb+" + archive.url + query)
    wanted = query_of(data)
    with retrieved(wanted, given, wanted.address, key=KEY, cache=cache, wait=0.0) as found:
        return load_cohort(found.data, given, key=KEY)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("?Modality=CT", 8),
        ("/series?Modality=CT&limit=7", 7),
        ("/series?00080060=CT&offset=1", 7),
        ("/series?Modality=CT&includefield=StudyDescription,00081030", 8),
        ("/studies?Modality=CT", 8),
    ],
)
def test_a_search_is_the_table_whatever_the_pages_of_its_answer(archive, query, count):
    got = searched(archive, query, spec(series="largest"))
    assert (len(got.cases), got.classes) == (count, ("CHEST", "HEAD"))
    assert got.record.grouped_by == "patient"


def test_nothing_is_retrieved_but_what_the_search_found(archive):
    with pytest.raises(DataError, match="found 1"):
        searched(archive, "/?Modality=CT&BodyPartExamined=HEAD", spec())
    assert {name for name in archive.asked if name.startswith("retrieve")} == {
        f"retrieve 2.25.1{n}" for n in (0, 2, 4, 6)
    }


def test_labels_may_stand_in_a_table_of_the_working_directory_joined_on_what_the_search_shows(
    archive, tmp_path, monkeypatch
):
    manifest(tmp_path, [{"StudyInstanceUID": f"2.25.8{n}", "finding": "ab"[n // 4]} for n in range(COUNT)], "found.csv")
    monkeypatch.chdir(tmp_path)
    joined = Columns(label="finding", join=({"table": "found.csv", "on": ("StudyInstanceUID",)},))
    got = searched(archive, "?Modality=CT", spec(joined))
    assert sorted(case.label for case in got.cases) == [0] * 4 + [1] * 4
    outside = Columns(label="finding", join=({"table": "../found.csv", "on": ("StudyInstanceUID",)},))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(DataError, match="there is no such table"):
        searched(archive, "?Modality=CT", spec(outside))


def test_names_and_birth_dates_of_the_answer_are_not_even_attributes(archive):
    got = searched(archive, "?Modality=CT", spec())
    assert "PatientName" not in {name for case in got.cases for name in case.attributes}


def test_later_commands_start_from_the_cache_also_where_the_server_is_gone(archive, tmp_path):
    first = searched(archive, "?Modality=CT", spec(), tmp_path / "kept")
    (view,) = cached_views(tmp_path / "kept")
    assert view.cases == COUNT
    asked = archive.asked.copy()
    archive.wrong = lambda path: 500
    second = searched(archive, "?Modality=CT", spec(), tmp_path / "kept")
    assert second.record == first.record
    assert archive.asked == asked
    with pytest.raises(DataError, match="status 500"):
        searched(archive, "?Modality=PT", spec(), tmp_path / "kept")
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "kept").rglob("*.csv")} == {0o600}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?Modality=MR", "finds nothing"),
        ("?access_token=hunter2", "parameter 1 of the query in --data is no attribute of DICOM"),
        ("?Modality=CT&Modality=PT", "names an attribute twice"),
        ("?limit=no", "no whole number"),
        ("?Modality=CT#labels", "holds a '#'"),
    ],
)
def test_a_search_that_can_not_be_asked_is_told_without_what_it_says(archive, query, words):
    with pytest.raises(DataError) as caught:
        searched(archive, query, spec())
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("dicomweb+http://pacs.example/dicom-web?Modality=CT", "neither https nor"),
        ("dicomweb+https://me:hunter2@pacs.example/dicom-web", f"set {TOKEN}"),
        ("dicomweb+ftp://pacs.example/", "is no address"),
        ("dicomweb+https://", "is no address"),
    ],
)
def test_an_address_as_data_is_held_to_the_same_rules(address, words):
    with pytest.raises(DataError, match="--data") as caught:
        query_of(Path(address))
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_row_may_name_a_study_by_the_protocols_rule_of_series(archive, tmp_path):
    manifest(tmp_path, [{"study": f"2.25.8{n}", "label": "ab"[n % 2]} for n in range(COUNT)], "labels.csv")

    def rows(given: Protocol) -> Cohort:
        address = address_of(archive.url)
        with retrieved(tmp_path / "labels.csv", given, address, key=KEY, cache=tmp_path / "kept", wait=0.0) as found:
            return load_cohort(found.data, given, key=KEY)

    with pytest.raises(DataError, match="2 series in one examination, of 7, 3 files"):
        rows(spec(Columns(path="study")))
    got = rows(spec(Columns(path="study"), series="largest"))
    assert len(got.cases) == COUNT
    assert {case.pixels for case in got.cases} == {
        case.pixels for case in searched(archive, "?Modality=CT", spec()).cases
    }
    asked = archive.asked.copy()
    assert rows(spec(Columns(path="study"), series="largest")).record == got.record
    assert {k: n for k, n in (archive.asked - asked).items() if "2.25.1" in k} == {}


def failure(archive: Archive, given: Protocol | None = None) -> str:
    with pytest.raises(DataError) as caught:
        searched(archive, "?Modality=CT", given or spec())
    return str(caught.value)


def test_a_redirect_to_another_host_gets_neither_request_nor_token(archive, export, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret-token")
    with serving(export) as elsewhere:
        archive.sent_to = elsewhere.url
        archive.wrong = lambda path: 307
        message = failure(archive)
    assert "sends to another address, which is not followed" in message
    assert "secret-token" not in message
    assert not elsewhere.tokens


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "", "multipart/related"])
def test_another_type_of_content_than_dicom_is_told(archive, kind, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret-token")
    archive.kinds = lambda right: kind if right.startswith("multipart") else right
    message = failure(archive)
    assert "is answered with what is no DICOM" in message
    assert "secret-token" not in message


def test_a_server_that_asks_to_wait_is_waited_for(archive):
    left = iter([429])
    archive.wrong, archive.retry_after = (lambda path: next(left, None)), "1"
    begun = time.monotonic()
    assert len(searched(archive, "?Modality=CT", spec()).cases) == COUNT
    assert time.monotonic() - begun >= 1


def test_a_server_that_falls_silent_half_way_is_given_up(archive):
    archive.slow = 1.0
    with (
        Server(address_of(archive.url), wait=0.0, timeouts=(1.0, 0.1)) as server,
        pytest.raises(DataError, match=r"(does not answer in time|breaks off), 3 times"),
    ):
        server.find("2.25.10")


AUTHORITY = trustme.CA()
AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(made)
    return made


def test_a_server_under_the_sites_own_authority_is_trusted_by_the_environment_alone(export, tmp_path, monkeypatch):
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")
    with serving(export, context(AUTHORITY.issue_cert("127.0.0.1"))) as archive:
        assert archive.url.startswith("https://")
        for name in AUTHORITIES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(TOKEN, "secret-token")
        message = failure(archive)
        assert "certificate can't be verified" in message
        assert "\n" not in message
        assert not archive.tokens, "nothing is said before the server has shown who it is"
        for name in AUTHORITIES:
            monkeypatch.setenv(name, str(tmp_path / "authority.pem"))
            query = query_of(Path(f"dicomweb+{archive.url}?Modality=CT"))
            with Server(query.address, wait=0.0) as server:
                assert len(server.search(query)) == COUNT
                found, _ = server.find("2.25.80")
                assert server.retrieve(found, lambda number, data: None, 2**20) > 0
            monkeypatch.delenv(name)
        assert archive.tokens == {"Bearer secret-token"}


@pytest.mark.parametrize("wrong", ["name", "expired"])
def test_a_certificate_of_another_name_or_time_is_refused_under_a_known_authority(export, tmp_path, monkeypatch, wrong):
    AUTHORITY.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    leaf = (
        AUTHORITY.issue_cert("pacs.example")
        if wrong == "name"
        else AUTHORITY.issue_cert("127.0.0.1", not_before=past, not_after=past + datetime.timedelta(1))
    )
    with serving(export, context(leaf)) as archive:
        assert "certificate can't be verified" in failure(archive)
        assert not archive.asked


def test_an_authority_that_is_no_certificate_is_told_by_its_variable(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("no certificate")
    for place in ("notes.txt", "nowhere.pem"):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / place))
        with pytest.raises(DataError, match="REQUESTS_CA_BUNDLE names no file of certificates"):
            query_of(Path("dicomweb+https://pacs.example/dicom-web?Modality=CT"))
