"""The page in a real browser: desktop and phone, light and dark, on paper, for keyboards and for screen readers."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from pypdf import PdfReader
from reporting_many import many_endpoints
from reporting_records import make_run

from medharden.audit import RunFiles
from medharden.record import Finding, Verdict
from medharden.reporting.page import html_report
from medharden.reporting.source import read_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the path: install it to open the report in it")
MANY = {
    "many": {},
    "many-failed": {"failed": 3, "unmet": 9},
    "many-open": {"unmet": 2, "justified": False},
    "many-classes": {"classes": tuple(f"finding with a name of its own number {k}" for k in range(14)), "failed": 14}
    | {"justified": False, "title": "A title that has to be read twice, since it goes on for longer than a line does"},
}
LONG = "consolidation_with_a_name_that_no_one_would_ever_write_without_a_single_space_in_it"


@dataclass
class Opened:
    """A page, what it said on the console, and what it asked the network for."""

    page: Any
    said: list[str]
    asked: list[str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
    with api.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A passing run with pictures, a failing one with unfriendly names, some with many endpoints, and the real one."""
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "two": make_run(folder / "two", examples=(1, 16, 16)),
        "three": make_run(
            folder / "three",
            classes=("<script>alert(1)</script>", LONG, "\u05d1\u05d3\u05d9\u05e7\u05d4"),
            title='"><img src=https://example.org/x onerror=alert(2)>',
            verdict=Verdict.FAIL,
            findings=(Finding("x.y", "critical", f"{LONG} <iframe src=https://example.org></iframe>"),),
        ),
        **{name: many_endpoints(folder / name, **made) for name, made in MANY.items()},
    }
    for name, run in runs.items():
        (folder / f"{name}.html").write_bytes(html_report(read_run(RunFiles(run))))
    return {name: folder / f"{name}.html" for name in runs} | {"example": ROOT / "docs/example-report/report.html"}


def opened(browser: Any, path: Path, width: int, scheme: str, **context: Any) -> Opened:
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **context).new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
    page.goto(path.as_uri())
    return Opened(page, said, asked)


def sideways(page: Any, selector: str) -> list[str]:
    """Regions that show only part of what they hold."""
    wide: list[str] = page.evaluate(
        "s => [...document.querySelectorAll(s)].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)",
        selector,
    )
    return wide


def cut_off(page: Any) -> list[str]:
    """What is wider than the sheet on paper."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 680, "height": 960})  # the width of A4 between its margins, in CSS pixels
    wide: list[str] = page.evaluate(
        "[...document.querySelectorAll('table, figure, pre')]"
        ".filter(e => e.getBoundingClientRect().right > e.parentElement.getBoundingClientRect().right + 1)"
        ".map(e => e.innerText.slice(0, 60))"
    )
    return wide


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *itertools.product(("two", "three"), (1280, 390), ("light", "dark")),
        ("many-failed", 1280, "light"),
        ("many-failed", 390, "dark"),
    ],
)
def test_the_page_is_quiet_fits_and_is_accessible(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    view = opened(browser, pages[name], width, scheme, bypass_csp=True)
    assert view.said == []
    assert view.asked == [pages[name].as_uri()]
    assert view.page.evaluate("document.documentElement.scrollWidth") <= width
    if name == "two":  # at a desk nothing is scrolled sideways, and the first page nowhere
        assert sideways(view.page, ".scroll" if width > 1000 else ".first .scroll") == []
    found = axe.Axe().run(view.page).response
    assert len(found["passes"]) > 15
    grave = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in grave] == []
    view.page.context.close()


def test_it_works_without_scripts_and_every_section_is_reached_by_keyboard(
    browser: Any, pages: dict[str, Path]
) -> None:
    view = opened(browser, pages["two"], 1280, "light", java_script_enabled=False)
    assert view.page.locator("h1").inner_text() == "Pneumonia on frontal chest radiographs"
    view.page.keyboard.press("Tab")
    assert view.page.locator(":focus").inner_text() == "Skip to the report"
    reached = []
    for _ in range(8):
        view.page.keyboard.press("Tab")
        reached.append(view.page.locator(":focus").get_attribute("href"))
    assert reached[0] == "#model"
    assert reached[-1] == "#sign"
    view.page.context.close()


@pytest.mark.parametrize("name", list(MANY))
def test_the_first_page_prints_on_one_sheet_however_many_endpoints_there_are(
    browser: Any, pages: dict[str, Path], name: str
) -> None:
    view = opened(browser, pages[name], 1280, "light")
    printed = PdfReader(io.BytesIO(view.page.pdf(prefer_css_page_size=True)))
    first, second = (" ".join(printed.pages[k].extract_text().split()) for k in range(2))
    for said in ("What changed for patients", "Robust accuracy", "more are met", "The reference standard:"):
        assert said in first
    assert "What was hardened" in second
    assert "What was hardened" not in first
    if name != "many-classes":  # of fourteen classes each has its rows
        assert len(printed.pages) < 20
    assert cut_off(view.page) == []
    view.page.context.close()


@pytest.mark.parametrize("name", ["two", "example"])
def test_it_prints_on_a4_with_all_of_the_first_page_on_one_sheet_and_nothing_cut_off(
    browser: Any, pages: dict[str, Path], name: str
) -> None:
    view = opened(browser, pages[name], 1280, "dark")
    printed = PdfReader(io.BytesIO(view.page.pdf(prefer_css_page_size=True)))
    box = printed.pages[0].mediabox
    assert (round(box.width), round(box.height)) == (595, 842)
    assert 5 < len(printed.pages) < 20
    first = " ".join(printed.pages[0].extract_text().split())
    told = ("PASS", "What changed for patients", "Robust accuracy", "What was not tested", "The reference standard:")
    for said in told:
        assert said in first
    assert cut_off(view.page) == []
    assert view.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    view.page.context.close()
