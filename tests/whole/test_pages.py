"""The commands on the pages for newcomers, run in order on phantoms as they stand, and the pages' length."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command import environment, medharden
from conftest import ROOT
from dicom_volumes import positions, series
from monai.networks.nets import DenseNet121

from medharden.data import write_phantom_cohort
from medharden.models import timm_module

DOCS = ROOT / "docs"
SHORT = sorted([*DOCS.glob("howto-*.md"), *DOCS.glob("tutorial-*.md"), *DOCS.glob("start-*.md")])
# what a page leaves to its reader: settings small enough for a test
QUICK = """\
hardening: {photometric: 0, epochs: 2, min_steps: 1}
suite: {reason: quick, sanity_cases: 4, attacks: [{attack: pgd, steps: 4}]}
"""


def blocks(page: str, language: str) -> list[str]:
    """A page's blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.S)


def commands(page: str) -> list[list[str]]:
    """The commands in a page's shell blocks."""
    typed = [block.replace("\\\n", " ") for block in blocks(page, "sh")]
    lines = [line for block in typed for line in map(str.strip, block.splitlines())]
    return [shlex.split(line) for line in lines if line.startswith(("medharden ", "torchrun "))]


def follow(pages: list[str], desk: Path, quick: str, also: dict[str, tuple[str, ...]] | None = None) -> int:
    """Types what the pages say, in order, and gives how many commands that were.

    Args:
        pages: their names.
        desk: the folder in which that is done.
        quick: what is written at the end of each protocol that a page makes.
        also: words to type in the place of a page's, where the run of a test has no PASS.
    """
    todo = [words for page in pages for words in commands(page)]
    for program, *words in todo:
        words = [part for word in words for part in (also or {}).get(word, (word,))]
        result = medharden(*words, cwd=desk) if program == "medharden" else torchrun(*words, cwd=desk)
        said = f"{words}\n{result.stdout}{result.stderr}"
        verdict = words[0] == "gate" or ("harden" in words and "--dry-run" not in words)
        assert result.returncode in ((0, 1) if program == "torchrun" else (0, 3, 4) if verdict else (0,)), said
        if words[:2] == ["protocol", "new"]:
            quicken(desk / "mine.yaml", quick)
    return len(todo)


def quicken(protocol: Path, quick: str) -> None:
    """Writes settings small enough for a test in the place of those that were drafted."""
    protocol.write_text(re.sub(r"^hardening: .*\n", "", protocol.read_text(), flags=re.M) + quick)


def torchrun(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`torchrun WORDS` in a folder, by this environment's Python."""
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with what the first tutorial's reader has: images with a manifest, and a checkpoint."""
    write_phantom_cohort(tmp_path / "images", patients=60, seed=1)
    torch.manual_seed(0)
    network = timm_module().create_model("test_resnet", num_classes=2, in_chans=1)
    torch.save({"arch": "test_resnet", "state_dict": network.state_dict()}, tmp_path / "model.pt")
    return tmp_path


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """CT series as they are exported, a table, the weights of a 3D network, and the page's own protocol."""
    rng = np.random.default_rng(0)
    rows = ["path,label,patient"]
    for number in range(40):
        body = rng.normal(0, 20, (12, 24, 24))
        body[4:8, 8:14, 8:14] += 150 * (number % 2)
        body[:, :, :4] = -1000
        place = f"PA{number:06d}/ST000001/SE000001"
        series(
            tmp_path / "export" / place, (body + 1000).astype(np.int16), positions(12), uid=f"2.25.9{number}",
            PatientID=f"P{number}", RescaleIntercept=-1000, RescaleSlope=1,
        )  # fmt: skip
        rows.append(f"{place},{('benign', 'bleeding')[number % 2]},P{number}")
    (tmp_path / "export" / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "ours.yaml").write_text(blocks("tutorial-volumes.md", "yaml")[0])
    torch.manual_seed(0)
    given = yaml.safe_load((tmp_path / "ours.yaml").read_text())["model"]["arguments"]
    network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2, **given)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path


def test_the_pages_for_newcomers_run_as_they_stand(desk: Path) -> None:
    pages = ["tutorial-first-run.md", "howto-margin.md", "howto-inconclusive.md", "howto-report.md"]
    assert follow([*pages, "howto-sign.md", "tutorial-ci.md"], desk, QUICK) == 23
    for written in ("run/report.html", "frontier.png", "for-the-board/report.pdf"):
        assert (desk / written).is_file()


@pytest.mark.skipif(
    os.environ.get("MEDHARDEN_TEST_ALL_PAGES") != "1",
    reason="takes four minutes of processor time: set MEDHARDEN_TEST_ALL_PAGES=1",
)
def test_the_pages_on_scaling_out_and_exporting_run_as_they_stand(desk: Path) -> None:
    made = commands("tutorial-first-run.md")[1]
    assert made[1:3] == ["protocol", "new"]
    assert medharden(*made[1:], cwd=desk).returncode == 0
    quicken(desk / "mine.yaml", QUICK)
    file = "run/exports/hardened.UNGATED.int8.onnx"
    also = {"--to": ("--ungated", "--to"), "run/exports/hardened.int8.onnx": (file,)}
    assert follow(["howto-scale.md", "howto-export.md"], desk, QUICK, also) == 10
    assert (desk / "run-2" / "gate.json").is_file()
    assert (desk / file).is_file()


def test_the_tutorial_on_volumes_runs_as_it_stands(export: Path) -> None:
    assert (
        follow(["tutorial-volumes.md"], export, QUICK.replace("min_steps: 1", "min_steps: 1, learning_rate: 1.0e-5"))
        == 5
    )
    assert (export / "run" / "report.html").is_file()


@pytest.mark.parametrize("page", SHORT, ids=lambda p: p.name)
def test_a_page_for_newcomers_is_short(page: Path) -> None:
    limit = 600 if page.name.startswith("start-") else 900
    assert len(page.read_text(encoding="utf-8").split()) < limit
