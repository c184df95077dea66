"""The model card: metadata that a hub can read, and text from outside that stays text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from reporting_records import make_run

from medharden.audit import RunFiles
from medharden.record import Finding, Verdict
from medharden.reporting.card import model_card
from medharden.reporting.markdown import plain
from medharden.reporting.source import read_run

ATTACKS = (
    "[click](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "<script>alert(1)</script>",
    "https://example.org www.example.org",
    "**bold** _it_ ~~gone~~ `code`",
    "| cell | cell |",
    "\n# heading\n---\nlicense: mit\n---\n",
    "&lt;b&gt; \\[x\\](y)",
    "- item",
    "1. item",
    "2026) item",
    "+ item",
)


def card(tmp_path: Path, **changes: object) -> str:
    return model_card(read_run(RunFiles(make_run(tmp_path, **changes)))).decode()  # type: ignore[arg-type]


def test_a_hub_reads_the_metadata_and_the_results(tmp_path: Path) -> None:
    loaded = ModelCard(card(tmp_path)).data
    assert (loaded.library_name, loaded.pipeline_tag) == ("medharden", "image-classification")
    results = {r.metric_name: r.metric_value for r in loaded.eval_results}
    assert results["Clean accuracy"] == pytest.approx(579 / 600, abs=1e-6)
    assert results["sensitivity"] == pytest.approx(386 / 400, abs=1e-6)
    assert "license" not in loaded.to_dict()


def test_the_card_holds_verdict_limits_and_what_was_not_tested(tmp_path: Path) -> None:
    text = card(tmp_path, verdict=Verdict.FAIL)
    assert "**FAIL** under the protocol example." in text
    assert "| All together | " in text
    for heading in (
        "What changed for patients, without attack",
        "Endpoints",
        "Threat model",
        "Attacks on the released model",
        "Hazards",
        "Not tested",
        "Not claimed",
    ):
        assert f"\n## {heading}\n" in text


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_outside_becomes_no_markup(attack: str) -> None:
    page = MarkdownIt("commonmark", {"linkify": False}).enable("table").render(f"- {plain(attack)}")
    for tag in ("<a", "<img", "<script", "<strong", "<em", "<code", "<h1", "<table", "<hr", "<del", "<ol"):
        assert tag not in page
    assert page.count("<ul") == 1
    assert "://" not in plain(attack)


def test_titles_and_findings_can_not_reach_the_metadata_or_break_a_table(tmp_path: Path) -> None:
    everything = " ".join(ATTACKS)
    text = card(tmp_path, title=everything, classes=(everything, "b"), findings=(Finding("x", "info", everything),))
    front = yaml.safe_load(text.split("---\n")[1])
    assert set(front) == {"library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    assert ModelCard(text).data.library_name == "medharden"
    page = MarkdownIt("commonmark").enable("table").render(text.split("\n---\n", 1)[1])
    assert page.count("<h1>") == 1
    for tag in ("<a", "<img", "<script", "<em", "<hr"):
        assert tag not in page


def test_a_license_that_is_stated_is_in_the_metadata(tmp_path: Path) -> None:
    records = read_run(RunFiles(make_run(tmp_path)))
    stated = records.protocol.report.model_copy(update={"license": "apache-2.0"})
    records = replace(records, protocol=records.protocol.model_copy(update={"report": stated}))
    assert ModelCard(model_card(records).decode()).data.license == "apache-2.0"
