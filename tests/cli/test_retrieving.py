"""`--dicomweb` on the command line: what is read, what is said, and what is left behind."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from data_helpers import KEY, manifest
from dicom_volumes import FRAMES, positions, series
from dicomweb_server import serving
from typer.testing import CliRunner

from medharden.cli import pipeline
from medharden.cli.app import app
from medharden.cli.console import out
from medharden.data.pseudonyms import pseudonym
from medharden.errors import Interrupted
from medharden.protocol import load_protocol

PROTOCOL = """
schema_version: 1
name: series
title: Series
intended_use: Tests
columns: {path: series_uid, label: finding}
input: {dims: 3, size: [6, 6, 6]}
threat: {eps: 2, unit: 1/255}
"""


@pytest.fixture
def archive(tmp_path, monkeypatch):
    rows = []
    for n in range(6):
        frames = np.random.default_rng(n).integers(0, 900, FRAMES.shape).astype(np.int16)
        series(tmp_path / "archive" / str(n), frames, positions(7), uid=f"2.25.1{n}", PatientID=f"P{n}")
        rows.append({"series_uid": f"2.25.1{n}", "finding": "ab"[n % 2], "patient": f"P{n}"})
    manifest(tmp_path, rows, "labels.csv")
    (tmp_path / "series.yaml").write_text(PROTOCOL)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", KEY.decode())
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "archive") as found:
        yield found


def run(*arguments: object):
    out.__dict__.pop("console", None)  # it is made once a process, over the standard output of that moment
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def options(archive, *more: str) -> tuple[str, ...]:
    return ("--data", "labels.csv", "--dicomweb", archive.url, *more)


def test_inspect_shows_the_series_and_leaves_nothing_behind(archive):
    done = run("inspect", *options(archive, "--protocol", "series.yaml", "--json"))
    assert done.exit_code == 0, done.output
    assert "data.dicomweb" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}
    assert not list(Path("scratch").iterdir())
    case = pseudonym(KEY, "case", "2.25.13")
    where = run("inspect", *options(archive, "--protocol", "series.yaml", "--locate", case))
    assert (where.exit_code, where.stdout.strip()) == (0, "2.25.13")


@pytest.mark.parametrize("command", ["harden", "evaluate"])
def test_runs_read_the_series_and_put_the_finding_on_record(archive, monkeypatch, command):
    seen = []

    def read(job):
        cohort = pipeline.load_data(job, load_protocol("series.yaml"), lambda *_: None)
        seen.append((len(cohort.cases), [f.code for f in cohort.record.findings]))
        return 0

    monkeypatch.setattr(pipeline, "run_all", read)
    monkeypatch.setattr(pipeline, "run_evaluation", read)
    Path("run").mkdir()
    Path("run/protocol.yaml").write_text(PROTOCOL)
    Path("m.pt").write_bytes(b"")
    given = ("m.pt", "--protocol", "series.yaml") if command == "harden" else ("run",)
    done = run(command, *given, *options(archive, "--cache", "kept", "--json"))
    assert done.exit_code == 0, done.output
    ((count, codes),) = seen
    assert (count, codes.count("data.dicomweb")) == (6, 1)
    assert len(list(Path("kept").glob("dicomweb-*/2.25.*"))) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("harden", "no-such.pt"), "there is no model file no-such.pt; nothing was retrieved"),
        (("evaluate", "archive"), "it has no protocol.yaml; nothing was retrieved"),
        (("harden", "series.yaml", "--dry-run"), "--dry-run measures on local files"),
    ],
)
def test_nothing_is_asked_for_in_vain(archive, arguments, words):
    done = run(*arguments, *options(archive))
    assert done.exit_code != 0
    assert words in str(done.exception)
    assert not archive.asked


def test_a_folder_is_no_table_of_series(archive):
    done = run("inspect", "--data", "archive", "--dicomweb", archive.url, "--protocol", "series.yaml")
    assert "with --dicomweb --data is a CSV file" in str(done.exception)


def test_ctrl_c_says_what_is_kept(archive, monkeypatch):
    def stopped(path: str) -> None:
        if "2.25.13" in path:
            monkeypatch.setattr("medharden.data.dicomweb.requesting.Requests.get", interrupt)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    archive.wrong = stopped
    with pytest.raises(Interrupted, match="series that came whole are in the cache; run the same command again"):
        run("inspect", *options(archive, "--protocol", "series.yaml", "--cache", "kept", "--json"))
    assert len(list(Path("kept").glob("dicomweb-*/2.25.*"))) == 3
    assert not list(Path("kept").glob("dicomweb-*/.*"))
