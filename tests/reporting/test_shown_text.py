"""Text of others on its way to a reader: nothing in it steers a terminal, turns its letters or hides; letters stay."""

from __future__ import annotations

import ast
import io
import json
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_clear, medharden
from conftest import ROOT
from gating_changes import grouped
from gating_factory import ENVIRONMENT, Records, protocol, records, write_run
from pypdf import PdfReader
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tiny import PROTOCOL
from verifying_runs import make_key

from medharden.cli import attacked, console, main
from medharden.cli.console import Output, SafeConsole, marked
from medharden.protocol import Protocol, protocol_yaml
from medharden.record import AttackedCase, AttackRecord, ExcludedCase, Finding
from medharden.text import escaped_json, neutral, neutral_lines

LETTERS = "ümläut 心 مرحبا é शिक्षा 🩺 ❤️ 👩🏽‍⚕️ می‌خواهم 1 000"
"""What must stay: scripts from both sides, marks, emoji, blanks, and joiners where they are part of the spelling."""
CONTROLS = "".join(
    map(
        chr,
        (
            *range(0x20),  # C0
            *range(0x7F, 0xA0),  # DEL and C1
            *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x180B, 0x180E, 0x2800, 0x3164, 0xFEFF, 0xFFA0, 0xFFF9),
            *(*range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070)),  # zero width, direction, lines
            *(0xE0001, *range(0xE0020, 0xE0080)),  # tags
            *(0xFE00, 0xFE0F, 0xE0100, 0xE01EF),  # variation selectors, behind no sign that has variants
        ),
    )
)
MARKUP = "[red]all[/red] [link=https://example.org]is[/link] [bold :smile: well[/]"
UNSEEN = "\u200b\u200d\u2060\ufeff\u034f\u2800\u3164\ufe0f\U000e0041\U000e0101"
"""What a protocol may hold: it is read without control characters and changes of direction."""
ASKED = f"x{UNSEEN} {MARKUP}"
CANARY = f"x{CONTROLS}\x1b]8;;https://example.org\x1b\\ \x9b2K \u202e{MARKUP}"


def bad(text: str) -> list[str]:
    """Signs that no reader should meet, but for the ends of lines."""
    for word in (*LETTERS.split(), "⚕️"):  # which YAML may part from what it is joined to
        text = text.replace(word, "")
    return sorted({f"U+{ord(c):04X}" for c in text if c in CONTROLS and c != "\n"})


# --- the one place ---------------------------------------------------------------------------------------------------


def test_every_sign_that_steers_or_hides_becomes_a_visible_one_and_all_else_stays() -> None:
    for sign in CONTROLS:
        assert neutral(f"a{sign}b") == ("a b" if sign in "\t\n" else "a\N{REPLACEMENT CHARACTER}b"), (
            f"U+{ord(sign):04X}"
        )
    assert neutral(LETTERS) == LETTERS
    assert neutral("\ud800") == "\N{REPLACEMENT CHARACTER}", "half a letter, as of a file name that is no text"
    assert neutral_lines(f"{LETTERS}\r\n\x1b[2Kb\n") == f"{LETTERS}\n\N{REPLACEMENT CHARACTER}[2Kb\n"


def test_no_letter_mark_number_or_sign_of_any_script_is_lost() -> None:
    lost = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code))[0] in "LNPS" and neutral(chr(code)) != chr(code)
    ]
    assert set(lost) == set("\u115f\u1160\u2800\u3164\uffa0"), "which are letters, and blank"


@pytest.mark.parametrize(
    "text", ["\u200c", "a\u200cb", "心\u200d心", "🩺\u200d", "\u200d🩺", "🩺\u200c🩺", "a\ufe0f", "❤\ufe0f\ufe0f"]
)
def test_a_joiner_or_selector_that_shapes_nothing_is_seen(text: str) -> None:
    assert "\N{REPLACEMENT CHARACTER}" in neutral(text)


def test_json_says_the_same_in_escapes() -> None:
    text = json.dumps({CANARY: [LETTERS, CANARY]}, ensure_ascii=False)
    written = escaped_json(text)
    assert json.loads(written) == json.loads(text)
    assert bad(written) == []
    assert "ümläut 心" in written


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "shown",
    [
        CANARY,
        marked("[bold]{}[/] {}", CANARY, "\\"),
        Panel(CANARY, title=Text(CANARY), subtitle=marked("[green]{}[/]", CANARY)),
        Table(CANARY, title=CANARY, caption=CANARY),
        (table := Table("a", "b")) or table,
    ],
)
def test_a_console_shows_text_as_letters_whatever_it_stands_in(shown: object, terminal: bool) -> None:
    if isinstance(shown, Table):
        shown.add_row(*[CANARY] * len(shown.columns))
    stream = io.StringIO()
    SafeConsole(file=stream, force_terminal=terminal, width=400, color_system="truecolor").print(shown)
    said = stream.getvalue()
    own = said.replace("\x1b[", "")  # rich's own colours: what else there is must be seen
    assert bad(own) == []
    assert "[red]all[/red] [link=" in said
    assert "example.org]is" in said
    assert ":smile:" in said
    assert "]8;;" not in said.replace("\N{REPLACEMENT CHARACTER}]8;;", "")


def test_nothing_else_prints() -> None:
    """So that no command can pass by the console."""
    doors = {"print", "echo", "secho", "from_markup", "Console", "get_console"}
    for path in (ROOT / "medharden").rglob("*.py"):
        if path.name == "console.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                continue  # a field of that name, such as an MR volume's echo, is no door
            assert name not in doors, f"{path.name}:{node.lineno} {name}"
            of_a_child = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "process"
            assert of_a_child or name not in ("stdout", "stderr"), f"{path.name}:{node.lineno} {name}"


# --- every command ---------------------------------------------------------------------------------------------------


def hostile_protocol() -> Protocol:
    """Names of classes and columns are the data's own: here the protocol does not name them."""
    fields = protocol(positive=None, columns=("sex",)).model_dump(mode="json")
    fields |= dict.fromkeys(("title", "intended_use"), f"{ASKED} {LETTERS}")
    for margin in (*fields["endpoints"]["noninferiority"], fields["endpoints"]["robustness"]):
        margin["justification"] = ASKED
    words = ("population", "reference_standard", "provenance", "residual_risk", "side_effects", "retention", "license")
    hazards = [{"hazard": ASKED, "link": ASKED, "residual_risk": ASKED}]
    signs = [{"meaning": ASKED, "role": ASKED, "name": ASKED}]
    fields["report"] = dict.fromkeys(words, ASKED) | {"hazards": hazards, "sign_off": signs}
    return Protocol.model_validate_json(json.dumps(fields))


def hostile_records(lost: int = 7) -> Records:
    made = records(rules=hostile_protocol(), classes=(CANARY, f"b{CANARY}"), lost=lost)
    made = grouped("sex", 150)(made)
    finding = Finding(f"x.{CANARY}", "warning", f"{CANARY} {LETTERS}")
    model = replace(made.harden.original, arch=CANARY, arguments={CANARY: CANARY})
    table = replace(made.cases, groups={"sex": tuple(f"{v}{CANARY}" for v in made.cases.groups["sex"])})
    left_out = (ExcludedCase("x", None, CANARY, CANARY),)
    environment = replace(made.harden.environment, packages={CANARY: CANARY}, platform=CANARY)
    return replace(
        made,
        cohort=replace(
            made.cohort,
            source=CANARY,
            formats={CANARY: 3},
            excluded=left_out,
            findings=(finding,),
        ),
        harden=replace(made.harden, original=model, findings=(finding,), environment=environment),
        evaluation=replace(made.evaluation, findings=(finding,), threat=CANARY, environment=environment),
        cases=table,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory full of it, another one, a protocol and a cohort."""
    place = tmp_path_factory.mktemp("hostile")
    for name, lost in (("run", 7), ("other", 9)):
        (place / name).mkdir()
        write_run(place / name, hostile_records(lost))
    (place / "p.yaml").write_text(protocol_yaml(hostile_protocol()), encoding="utf-8")
    make_key(place)
    return place


Say = Callable[..., str]


@pytest.fixture(params=[False, True], ids=["piped", "terminal"])
def say(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Say]:
    """What a command says on both streams, as a pipe or a terminal without colours gets it."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("MEDHARDEN_PSEUDONYM_KEY", "a key for tests, sixteen bytes or more")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setattr(Output, "terminal", request.param)

    def run(*arguments: str, code: int | None = None) -> str:
        for name in ("json", "quiet"):
            setattr(console.out, name, False)
        console.out.__dict__.pop("console", None)
        monkeypatch.setattr(sys, "argv", ["medharden", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        said = capsys.readouterr()
        assert code is None or (done.value.code or 0) == code, said
        assert "defect" not in said.err, said
        return said.out + said.err

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    console.out.json = console.out.quiet = False
    console.out.__dict__.pop("console", None)
    for number, handler in handlers.items():
        signal.signal(number, handler)


SIGN = ("--name", f"{MARKUP} ü 心", "--role", MARKUP, "--meaning", "approval", "--reason", MARKUP)


@pytest.mark.parametrize("form", ["text", "json", "markdown"])
def test_the_gate_prints_no_such_sign_in_any_form(say: Say, form: str) -> None:
    said = say("gate", "run", "--read-only", "--format", form)
    assert bad(said) == []
    assert "all" in said
    assert form == "json" or LETTERS in said
    if form == "text":
        assert "[red]all[/red]" in said
        assert "PASS" not in said.splitlines()[0]


def test_a_step_summary_holds_no_such_sign(say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    say("gate", "run", "--read-only")
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert bad(page) == []
    assert "https://" not in page


def test_no_rendered_file_holds_such_a_sign_and_letters_stay(say: Say, folder: Path) -> None:
    say("gate", "run")
    assert bad(say("report", "run")) == []
    say("frontier", "run")
    for name in ("report.html", "report.json", "model-card.md", "gate.junit.xml", "bom.cdx.json", "report.pdf"):
        path = folder / "run" / name
        text = path.read_bytes().decode("utf-8", "replace") if path.suffix != ".pdf" else ""
        if path.suffix == ".pdf":
            reader = PdfReader(path)
            text = "".join(page.extract_text() for page in reader.pages) + str(reader.metadata)
        assert bad(text) == [], name
        assert "ümläut" in text or name == "gate.junit.xml", name
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    assert LETTERS in page
    assert json.loads((folder / "run" / "report.json").read_text())["protocol"]["title"].startswith(ASKED)


def test_signing_verifying_and_comparing_print_no_such_sign(say: Say, folder: Path) -> None:
    say("gate", "other")
    public = "signer.key.pub"
    assert bad(say("sign", "other", "--key", "signer.key", *SIGN, "--supersede", code=0)) == []
    assert bad(say("sign", "other", "--key", "signer.key", "--name", CANARY, *SIGN[2:], code=1)) == []
    for arguments in (("verify", "other", "--key", public), ("verify", "other", "--json"), ("diff", "run", "other")):
        said = say(*arguments)
        assert bad(said) == [], arguments
        assert "[red]all[/red]" in said, arguments
    assert bad(say("diff", "run", "other", "--json")) == []


@pytest.mark.parametrize(
    "arguments", [("validate",), ("show",), ("show", "--json"), ("plan", "--cases", "400"), ("plan", "--json")]
)
def test_a_protocol_is_shown_and_planned_without_such_a_sign(say: Say, arguments: tuple[str, ...]) -> None:
    said = say("protocol", arguments[0], "p.yaml", *arguments[1:], code=0)
    assert bad(said) == []
    if arguments == ("show",):
        assert "[red]all" in said
        assert "ümläut 心" in said


def test_inspection_shows_hostile_classes_attributes_and_findings(say: Say, folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    names = [f"{k}{CANARY}".replace("/", "").replace("\0", "")[:60] for k in range(2)]
    rows = ["path,label,patient,site"]
    for n in range(60):
        Image.effect_noise((16, 16), 60 + n).save(tmp_path / f"{n}.png")
        label = names[n % 2].replace('"', "")
        rows.append(f'{n}.png,"{label}",p{n},"{CANARY[40:70]}{n % 2}"')
    (tmp_path / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "plain.yaml").write_text(PROTOCOL, encoding="utf-8")
    said = say("inspect", "--data", str(tmp_path), "--protocol", str(tmp_path / "plain.yaml"))
    assert bad(said) == []


def test_an_attack_s_outcome_is_printed_without_such_a_sign(say: Say, capsys: pytest.CaptureFixture[str]) -> None:
    case = AttackedCase("c", "p", True, True, True, "", 1, 1, 1, 0.0, "a.png", "0" * 64)
    findings = (Finding("x", "warning", CANARY),)
    more = ("0" * 64, "0" * 64, "original", "test", (CANARY, "b"), CANARY, "argmax", (case,), ())
    record = AttackRecord(*more, ENVIRONMENT, "", "", findings)
    console.out.__dict__.pop("console", None)
    attacked._show(record, Path(CANARY.replace("\0", "")))
    said = capsys.readouterr().out
    assert bad(said) == []
    assert "[red]all[/red]" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", "run{}"),
        ("gate", "run", "{}"),
        ("gate", "run", "--{}"),
        ("gate", "run", "--format", "{}"),
        ("{}",),
        ("--{}",),
        ("protocol", "show", "{}"),
        ("protocol", "plan", "default", "--cases", "{}"),
        ("gate", "run", "--read-only", "--protocol", "{}"),
        ("verify", "run", "--key", "{}"),
        ("inspect", "--data", "{}"),
        ("inspect", "{}.pt", "--data", "run"),
        ("report", "{}"),
        ("frontier", "run", "--out", "{}/x"),
        ("keygen", "{}/x"),
        ("harden", "{}", "--data", "{}", "--out", "out", "--arch", "{}", "--device", "{}"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_was_typed_is_quoted_without_such_a_sign(say: Say, arguments: tuple[str, ...], as_json: bool) -> None:
    typed = "x\x1b[2K\x9b\u202e\u200b\x7f[red]y[/]\r"
    more = ("--json",) if as_json and arguments[0] not in ("{}", "--{}") else ()
    said = say(*(argument.replace("{}", typed) for argument in arguments), *more)
    assert said
    assert bad(said) == []


def test_a_stream_without_the_letters_gets_their_code_points_and_the_exit_code_stands(folder: Path) -> None:
    result = medharden("gate", "run", "--read-only", cwd=folder, PYTHONIOENCODING="ascii")
    assert_clear(result, 3, "FAIL", "\\u5fc3")
