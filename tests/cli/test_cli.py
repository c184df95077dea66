"""The command line, as a user and a CI job meet it: outcomes, exit codes, and what is left on disk."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command import assert_clear, environment, medharden
from PIL import Image
from tiny import ARCH, PROTOCOL, tiny_cohort, tiny_model, tiny_protocol, write_archive

from medharden.audit import AuditLog, digest_file, look_at, read_history, read_ledger, read_record, record_look
from medharden.record import CohortRecord

EASY = "endpoints: {looks: 3, noninferiority: [{metric: accuracy, margin: 0.1}, {metric: recall, margin: 0.2}]}\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model, an archive and a protocol."""
    folder = tmp_path_factory.mktemp("shop")
    protocol = tiny_protocol(EASY)
    (folder / "tiny.yaml").write_text(PROTOCOL + EASY)
    tiny_model(folder, cohort=tiny_cohort(folder, protocol))
    return folder


@pytest.fixture(scope="module")
def done(shop: Path) -> subprocess.CompletedProcess[str]:
    """The whole pipeline, run once."""
    return harden(shop, "run", "--pictures", "--json")


def harden(shop: Path, out: str, *more: object, **environment: str) -> subprocess.CompletedProcess[str]:
    fixed = ("--data", "tiny.npz", "--protocol", "tiny.yaml", "--arch", ARCH, "--out", out)
    return medharden("harden", "model.pt", *fixed, *more, cwd=shop, **environment)


# --- the main job ------------------------------------------------------------------------------------------------


def test_harden_runs_through_to_a_pass_and_reports_it_to_machines(
    done: subprocess.CompletedProcess[str], shop: Path
) -> None:
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads(done.stdout)
    assert result["verdict"] == "PASS"
    assert result["clean_path_identical"] is True
    by_name = {s["name"]: s for s in result["subjects"]}
    assert by_name["composite"]["robust_accuracy"] > by_name["original"]["robust_accuracy"] + 0.3
    assert not result["margins_justified"]
    assert any("justif" in reason for reason in result["reasons"])
    written = {p.name for p in (shop / "run").iterdir()}
    assert written == {
        "protocol.yaml",
        "cohort.json",
        "hardened.safetensors",
        "hardened.json",
        "harden.json",
        "cases.parquet",
        "evaluation.json",
        "examples.safetensors",
        "gate.json",
        "gate.junit.xml",
        "report.html",
        "report.json",
        "report.pdf",
        "model-card.md",
        "bom.cdx.json",
        "audit.jsonl",
    }


def test_harden_run_again_opens_nothing_twice(done: subprocess.CompletedProcess[str], shop: Path) -> None:
    before = (shop / "run" / "evaluation.json").read_bytes(), (shop / "run" / "hardened.safetensors").read_bytes()
    again = harden(shop, "run")
    assert again.returncode == 0
    assert "finished earlier" in again.stdout
    assert before == (
        (shop / "run" / "evaluation.json").read_bytes(),
        (shop / "run" / "hardened.safetensors").read_bytes(),
    )


def test_the_stages_are_commands_of_their_own(done: subprocess.CompletedProcess[str], shop: Path) -> None:
    evaluated = medharden(
        "evaluate", "run", "--data", "tiny.npz", "--model", "model.pt", "--arch", ARCH, "--json", cwd=shop
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["subjects"]["original"]["n"] == 120
    gated = medharden("gate", "run", "--json", cwd=shop)
    assert (gated.returncode, json.loads(gated.stdout)["verdict"]) == (0, "PASS")
    reported = medharden("report", "run", cwd=shop)
    assert reported.returncode == 0
    assert "report.html" in reported.stdout


def test_evaluate_without_the_original_file_can_not_pass_the_identity_endpoint(
    done: subprocess.CompletedProcess[str], shop: Path, tmp_path: Path
) -> None:
    shutil.copytree(shop / "run", tmp_path / "run")
    evaluated = medharden("evaluate", tmp_path / "run", "--data", "tiny.npz", "--arch", ARCH, cwd=shop)
    assert evaluated.returncode == 0, evaluated.stderr
    assert medharden("gate", tmp_path / "run", cwd=shop).returncode == 4


def test_evaluate_refuses_to_open_the_test_split_once_the_looks_are_used_up(
    done: subprocess.CompletedProcess[str], shop: Path, tmp_path: Path
) -> None:
    shutil.copytree(shop / "run", tmp_path / "run")
    log = AuditLog(tmp_path / "run" / "audit.jsonl")
    asked = dict.fromkeys(("protocol", "cohort", "hardened"), "0" * 64)
    while read_history(tmp_path / "run").finished < 3:
        log.append("evaluate.test_split_opened", cases=120, **asked)
        log.append("evaluate.recorded", cases="", record=digest_file(tmp_path / "run" / "evaluation.json"))
    before = read_history(tmp_path / "run")
    evaluated = medharden("evaluate", tmp_path / "run", "--data", "tiny.npz", "--arch", ARCH, cwd=shop)
    assert_clear(evaluated, 1, "looked at 3 times", "endpoints.looks allows 3")
    assert read_history(tmp_path / "run") == before
    assert medharden("gate", tmp_path / "run", cwd=shop).returncode in (0, 4)


def test_looks_are_counted_over_copies_of_a_run_by_a_ledger(
    done: subprocess.CompletedProcess[str], shop: Path, tmp_path: Path
) -> None:
    """The protocol allows three looks: two are in the ledger, a copy's is the third, and another copy's is refused."""
    for name in ("one", "two"):
        shutil.copytree(shop / "run", tmp_path / name)
    ledger, cohort = tmp_path / "looks.jsonl", read_record(shop / "run" / "cohort.json", CohortRecord)
    of = dict.fromkeys(("protocol", "cohort", "hardened", "original"), "0" * 64)
    for earlier in ("first", "second"):
        record_look(ledger, look_at(cohort, look=earlier, **of), cohort, 3)
    given = ("--data", "tiny.npz", "--model", "model.pt", "--arch", ARCH, "--ledger", ledger)
    evaluated = medharden("evaluate", tmp_path / "one", *given, cwd=shop)
    assert evaluated.returncode == 0, evaluated.stderr
    found = read_ledger(ledger, key_id=cohort.key_id)
    assert found.looks[2].look == read_history(tmp_path / "one").look
    assert_clear(medharden("gate", tmp_path / "one", "--ledger", ledger, cwd=shop), 0, "looked at 3 times")
    assert_clear(medharden("gate", tmp_path / "two", "--ledger", ledger, cwd=shop), 5, "not in the ledger")
    before = read_history(tmp_path / "two").opened
    refused = medharden("evaluate", tmp_path / "two", *given, cwd=shop)
    assert_clear(refused, 1, "holds 3 looks", "endpoints.looks allows 3")
    assert read_history(tmp_path / "two").opened == before
    assert read_ledger(ledger, key_id=cohort.key_id) == found


@pytest.mark.parametrize(
    ("endpoints", "code", "verdict"),
    [
        ("fusion: {mode: clean}\n", 3, "FAIL"),
        ("fusion: {mode: guarded}\n", 4, "INCONCLUSIVE"),
    ],
)
def test_a_verdict_other_than_pass_has_its_own_exit_code(
    shop: Path, tmp_path: Path, endpoints: str, code: int, verdict: str
) -> None:
    (tmp_path / "other.yaml").write_text(PROTOCOL + endpoints)
    result = medharden(
        "harden",
        shop / "model.pt",
        "--data",
        shop / "tiny.npz",
        "--protocol",
        "other.yaml",
        "--arch",
        ARCH,
        cwd=tmp_path,
    )
    assert_clear(result, code, verdict)


def test_one_changed_byte_makes_the_gate_say_invalid(
    done: subprocess.CompletedProcess[str], shop: Path, tmp_path: Path
) -> None:
    shutil.copytree(shop / "run", tmp_path / "run")
    path = tmp_path / "run" / "hardened.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert_clear(medharden("gate", "run", cwd=tmp_path), 5, "INVALID", "hardened.safetensors")


# --- inspect, protocols ------------------------------------------------------------------------------------------


def test_inspect_shows_model_and_cohort_and_trains_nothing(shop: Path) -> None:
    result = medharden(
        "inspect", "model.pt", "--data", "tiny.npz", "--protocol", "tiny.yaml", "--arch", ARCH, "--json", cwd=shop
    )
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert shown["model"]["classes"] == 2
    assert shown["input_shape"] == [1, 16, 16]
    assert shown["cases"]["0"] == {"train": 100, "val": 40, "test": 60}
    assert shown["stored_range"][1] <= 255


def test_inspect_lists_every_problem_by_pseudonym(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("healthy", "ill"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(6):
            pixels = (torch.rand(8, 8) * 255).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"Jane_Doe_{number}.png")
    broken = tmp_path / "data" / "ill" / "Jane_Doe_0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (tmp_path / "data" / "ill" / "Jane_Doe_1.png").write_bytes(b"")
    result = medharden("inspect", "--data", "data", "--json", cwd=tmp_path)
    assert_clear(result, 1)
    problems = json.loads(result.stdout)["problems"]
    assert len(problems) == 2
    assert "Jane" not in result.stdout + result.stderr
    found = {
        medharden("inspect", "--data", "data", "--locate", p["case"], cwd=tmp_path).stdout.strip() for p in problems
    }
    assert found == {"ill/Jane_Doe_0.png", "ill/Jane_Doe_1.png"}
    assert_clear(medharden("inspect", "--data", "data", "--locate", "0" * 16, cwd=tmp_path), 1, "no case of these data")


def test_protocol_commands_list_show_and_validate(tmp_path: Path) -> None:
    listed = json.loads(medharden("protocol", "list", "--json", cwd=tmp_path).stdout)
    assert "ct-slice-hu" in {p["name"] for p in listed["protocols"]}
    shown = json.loads(medharden("protocol", "show", "demo", "--json", cwd=tmp_path).stdout)
    assert shown["hardening"]["epochs"]
    (tmp_path / "mine.yaml").write_text(PROTOCOL + "hardning: {}\n")
    assert_clear(medharden("protocol", "validate", "mine.yaml", cwd=tmp_path), 1, "did you mean 'hardening'")


def test_help_answers_in_under_a_second(tmp_path: Path) -> None:
    def once() -> float:
        """Processor time, which a busy machine does not lengthen as it does the time on the wall."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert medharden("--help", cwd=tmp_path, fresh=True).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 1


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("model.pt", "missing.pt"), ("no model file",)),
        (("tiny.npz", "nowhere"), ("nothing at the path given as data", "expected a folder, a CSV, .json or .npz")),
        (("tiny.yaml", "tinny.yaml"), ("no protocol",)),
        ((ARCH, "timm:resnet18"), ("do not fit timm:resnet18",)),
        ((ARCH, "timm:no_such_net"), ("no model 'no_such_net'",)),
    ],
)
def test_a_wrong_argument_is_a_clear_error(
    shop: Path, tmp_path: Path, change: tuple[str, str], words: tuple[str]
) -> None:
    command = ["harden", "model.pt", "--data", "tiny.npz", "--protocol", "tiny.yaml", "--arch", ARCH]
    command = [change[1] if part == change[0] else part for part in command]
    assert_clear(medharden(*command, "--out", tmp_path / "run", cwd=shop), 1, *words)
    left = {p.name for p in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
    assert left <= {"audit.jsonl"}


def test_a_usage_error_has_exit_code_two(tmp_path: Path) -> None:
    assert medharden("harden", "model.pt", cwd=tmp_path).returncode == 2
    assert medharden("hardn", cwd=tmp_path).returncode == 2


def test_an_error_reaches_a_machine_as_json(tmp_path: Path) -> None:
    result = medharden("gate", "nowhere", "--json", cwd=tmp_path)
    assert result.returncode == 1
    assert json.loads(result.stdout)["type"] == "RunError"


def test_an_output_folder_that_can_not_be_made_is_an_error_before_anything_is_read(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_clear(harden(shop, str(tmp_path / "file" / "run")), 1, "choose another --out")


def test_a_device_that_is_not_there_is_an_error(shop: Path, tmp_path: Path) -> None:
    found = harden(shop, str(tmp_path / "run"), "--device", "cuda:7")
    assert_clear(found, 1, "there is no device 'cuda:7'", "medharden doctor")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("lacking", "words"), [("model.pt", "no model file"), ("tiny.npz", "nothing at the path given as data")]
)
def test_what_is_to_be_read_is_missed_before_anything_is_read_or_written(
    shop: Path, tmp_path: Path, lacking: str, words: str
) -> None:
    command = ["harden", "model.pt", "--data", "tiny.npz", "--protocol", "tiny.yaml", "--arch", ARCH, "--out"]
    command = [f"no-{part}" if part == lacking else part for part in command]
    result = medharden(*command, tmp_path / "run", cwd=shop)
    assert_clear(result, 1, words)
    assert not (tmp_path / "run").exists()
    assert "read" not in result.stdout


def test_a_run_says_at_its_start_which_stages_come_and_how_long_they_take(shop: Path, tmp_path: Path) -> None:
    said = harden(shop, str(tmp_path / "run")).stdout
    line = next(line for line in said.splitlines() if line.startswith("stages, at most about: "))
    assert all(stage in line for stage in ("prepare", "harden", "calibrate", "attack release", "report"))
    assert "corruptions" not in line  # the protocol names none
    assert said.index(line) < said.index("harden: ") < said.index("report: done in")


def test_a_finished_run_is_not_overwritten_by_another(done: subprocess.CompletedProcess[str], shop: Path) -> None:
    (shop / "seeded.yaml").write_text(PROTOCOL + EASY + "seed: 3\n")
    before = (shop / "run" / "harden.json").read_bytes()
    result = medharden(
        "harden",
        "model.pt",
        "--data",
        "tiny.npz",
        "--protocol",
        "seeded.yaml",
        "--arch",
        ARCH,
        "--out",
        "run",
        cwd=shop,
    )
    assert_clear(result, 1, "choose another --out")
    assert (shop / "run" / "harden.json").read_bytes() == before


# --- Ctrl-C ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["run.started", "harden.locked", "evaluate.test_split_opened"])
def test_ctrl_c_exits_with_130_loses_nothing_and_the_same_command_goes_on(
    tmp_path: Path, shop: Path, stage: str
) -> None:
    write_archive(tmp_path / "tiny.npz", sizes=(700, 60, 160))
    slow = (
        PROTOCOL.replace("epochs: 20", "epochs: 5").replace("steps: 10", "steps: 40").replace("eps: 0.06", "eps: 0.01")
    )
    (tmp_path / "tiny.yaml").write_text(slow + EASY)
    command = ["harden", str(shop / "model.pt"), "--data", "tiny.npz"]
    command += ["--protocol", "tiny.yaml", "--arch", ARCH, "--out", "run", "--batch-size", "16"]
    started = [sys.executable, "-m", "medharden", *command]
    with subprocess.Popen(
        started, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        log = tmp_path / "run" / "audit.jsonl"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (log.exists() and f'"{stage}"' in log.read_text()):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = "".join(process.communicate(timeout=60))
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "run the same command again" in said
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")], "a half-written file was left"
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[-1] == "run.interrupted"
    again = medharden(*command, cwd=tmp_path, timeout=120)
    assert again.returncode in (0, 3, 4), again.stderr
    assert (tmp_path / "run" / "report.html").is_file()


def test_ctrl_c_in_code_compiled_from_text_exits_with_130_too(tmp_path: Path) -> None:
    pressed = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
    (tmp_path / "sitecustomize.py").write_text(
        f"import medharden.cli.app as cli\ncli.app = lambda: exec({pressed!r})\n"
    )
    python_path = f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"
    result = subprocess.run(
        [sys.executable, "-m", "medharden"],
        env=environment(PYTHONPATH=python_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr.strip()) == (130, "stopped: stopped")


def test_the_frontier_is_drawn_over_the_weights_that_were_tried_with_its_operating_point(
    done: subprocess.CompletedProcess[str], shop: Path
) -> None:
    result = medharden("frontier", "run", "--out", "frontier.svg", "--json", cwd=shop)
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    weights = [p["weight"] for p in shown["points"]]
    assert min(weights) < 0.1 < 0.9 < max(weights)
    assert shown["chosen"] in weights
    assert shown["chosen"] > 0.5
    robust = {p["weight"]: p["robust"] for p in shown["points"]}
    assert robust[max(weights)] > robust[min(weights)], "more of the branch is more robust"
    assert all(p["lower"] <= (p["gained"] - p["lost"]) / p["cases"] <= p["upper"] for p in shown["points"])
    picture = (shop / "frontier.svg").read_text()
    assert "prefers-color-scheme: dark" in picture
    assert picture.startswith("<svg")
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert_clear(medharden("frontier", "nowhere", cwd=shop), 1, "no run directory")
    assert_clear(medharden("frontier", "run", "--out", "f.bmp", cwd=shop), 1, "ends in .svg, .png or .pdf, found f.bmp")
    for name, sign in (("f.png", b"\x89PNG"), ("f.pdf", b"%PDF-")):
        assert_clear(medharden("frontier", "run", "--out", name, cwd=shop), 0, f"wrote {name}")
        assert (shop / name).read_bytes().startswith(sign)
    drawn = np.asarray(Image.open(shop / "f.png").convert("L"))
    assert drawn.shape[1] > 600
    assert 0.005 < (drawn < 200).mean() < 0.5, "something is drawn, on white"
