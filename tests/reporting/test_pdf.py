"""The PDF: the same words as the page, archivable, the same bytes every time, and no way in for markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from pypdf import PdfReader
from reporting_records import make_run

from medharden.record import Finding
from medharden.reporting import render
from medharden.reporting.svg import light_palette, standalone, to_svg

ATTACK = '#panic("x") $x_1$ *b* <script>alert(1)</script> \\ `code` #image("/etc/passwd") @ref \u5fc3\u202e\x07'


def words(path: Path) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(path).pages).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("run"), examples=(1, 16, 16))
    render(folder)
    return folder


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose texts would be markup to somebody."""
    folder = make_run(
        tmp_path_factory.mktemp("named"),
        classes=(ATTACK, "]#"),
        title=f"#eval(1) {ATTACK}",
        findings=(Finding("x.y", "critical", f"= heading {ATTACK}"),),
    )
    render(folder)
    return folder


def test_the_text_can_be_extracted_and_says_what_the_page_says(run: Path) -> None:
    text = words(run / "report.pdf")
    first = " ".join(PdfReader(run / "report.pdf").pages[0].extract_text().split())
    for said in ("PASS", "97.5% → 96.5%", "Missed cases (pneumonia)", "What was not tested"):
        assert said in first
    for said in (
        "the counts reconcile",
        "NISTAML.022",
        "Expected calibration error",
        "Sanity of the attack",
        "Sign-off",
    ):
        assert said in text
    page = (run / "report.html").read_text(encoding="utf-8")
    for heading in re.findall(r"<h3>([^<]+)</h3>", page):
        assert heading in text


def test_it_declares_pdf_a_3a_and_pdf_ua_1_and_holds_what_they_need(run: Path) -> None:
    reader = PdfReader(run / "report.pdf")
    data = (run / "report.pdf").read_bytes()
    assert b"<pdfaid:part>3</pdfaid:part><pdfaid:conformance>A</pdfaid:conformance>" in data
    assert b"<pdfuaid:part>1</pdfuaid:part>" in data
    catalogue = reader.root_object
    assert catalogue["/Lang"] == "en"
    assert catalogue["/MarkInfo"]["/Marked"]
    assert catalogue["/OutputIntents"][0]["/S"] == "/GTS_PDFA1"
    assert "/StructTreeRoot" in catalogue
    assert "/Encrypt" not in reader.trailer
    fonts = {name for page in reader.pages for name in page["/Resources"].get("/Font", {})}
    assert fonts
    for page in reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            below = font.get_object()["/DescendantFonts"][0].get_object()
            assert {"/FontFile2", "/FontFile3"} & set(below["/FontDescriptor"].get_object())


def conforming(data: bytes, profile: str) -> tuple[bool, list[str]]:
    """Whether the validator takes a PDF, and the rules that it says are broken."""
    page = pytest.importorskip("page", reason="page-validation is not installed: pip install '.[test]'")
    found = page.validate_pdf_bytes(data, profile=profile)
    excused = ends_in_a_return(data)
    broken = [f.rule_id for f in found.failures if not (excused and f.rule_id.endswith("STREAM-LENGTH-001"))]
    return not broken, broken


def ends_in_a_return(data: bytes) -> bool:
    """Whether each stream is as long as its `/Length`, and the last byte of one is 13.

    The validator takes that byte for half of the line's end, where ISO 32000-1, 7.3.8.1, says that it is data.
    """
    last, place = set(), 0
    while found := re.compile(rb"/Length (\d+)(?:(?!endobj|/Length).)*?>>\s*stream\r?\n", re.DOTALL).search(
        data, place
    ):
        place = found.end() + int(found.group(1))
        if data[place : place + 11].lstrip(b"\r\n")[:9] != b"endstream":
            return False
        last.add(data[place - 1])
    return 13 in last


def test_only_a_stream_of_its_own_length_that_ends_in_a_return_is_excused() -> None:
    def file(*streams: tuple[int, bytes]) -> bytes:
        parts = [b"1 0 obj\n<</Length %d>>\nstream\n%s\nendstream\nendobj\n" % (n, held) for n, held in streams]
        return b"".join(parts)

    assert ends_in_a_return(file((3, b"abc"), (4, b"abc\r")))
    assert not ends_in_a_return(file((3, b"abc"), (4, b"abcd")))
    assert not ends_in_a_return(file((2, b"abc"), (4, b"abc\r")))
    assert not ends_in_a_return(file((4, b"abc\r"), (9, b"abc")))


@pytest.mark.parametrize("profile", ["3a", "ua1"])
@pytest.mark.parametrize("which", ["pictures", "unfriendly names"])
def test_a_validator_finds_it_to_be_pdf_a_3a_and_pdf_ua_1(run: Path, named: Path, which: str, profile: str) -> None:
    data = ((run if which == "pictures" else named) / "report.pdf").read_bytes()
    assert conforming(data, profile) == (True, [])
    broken = data.replace(b"<pdfaid:part>3", b"<pdfaid:part>9").replace(b"<pdfuaid:part>1", b"<pdfuaid:part>9")
    assert not conforming(broken, profile)[0]


def test_the_machine_report_travels_with_it(run: Path) -> None:
    attached = PdfReader(run / "report.pdf").attachments
    assert attached["report.json"] == [(run / "report.json").read_bytes()]
    assert json.loads(attached["report.json"][0])["verdict"] == "PASS"


def test_text_from_records_is_set_as_it_stands(named: Path) -> None:
    text = words(named / "report.pdf")
    assert '#panic("x") $x_1$ *b* <script>alert(1)</script>' in text
    assert "[U+5FC3]\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}" in text
    assert "root:" not in text
    assert "\u202e" not in text


def test_a_chart_of_the_page_is_a_file_of_its_own_that_reads_as_xml() -> None:
    figure = Figure()
    figure.add_axes((0.1, 0.1, 0.8, 0.8)).plot([0, 1], [1, 0])
    file = standalone(to_svg(figure, "one", "Falls & rises."), light_palette())
    assert ElementTree.fromstring(file).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--" not in file
