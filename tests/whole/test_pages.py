"""The commands on the pages for newcomers, run in order on phantoms as they stand, and the pages' length."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from command import medharden
from conftest import ROOT

from medharden.data import write_phantom_cohort
from medharden.models import timm_module

DOCS = ROOT / "docs"
SHORT = sorted([*DOCS.glob("howto-*.md"), *DOCS.glob("tutorial-*.md"), *DOCS.glob("start-*.md")])
# what a page leaves to its reader: settings small enough for a test
QUICK = (
    "hardening: {photometric: 0, epochs: 2, min_steps: 1}\nsuite: {reason: quick, attacks: [{attack: pgd, steps: 4}]}\n"
)


def commands(page: str) -> list[list[str]]:
    """The commands in a page's shell blocks."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("medharden ")]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the tutorial's reader has: images with a manifest, and a checkpoint."""
    folder = tmp_path_factory.mktemp("desk")
    write_phantom_cohort(folder / "images", patients=60, seed=1)
    torch.manual_seed(0)
    network = timm_module().create_model("test_resnet", num_classes=2, in_chans=1)
    torch.save({"arch": "test_resnet", "state_dict": network.state_dict()}, folder / "model.pt")
    return folder


def test_the_pages_for_newcomers_run_as_they_stand(desk: Path) -> None:
    todo = [*commands("tutorial-first-run.md"), *commands("howto-sign.md")]
    assert len(todo) == 10
    for words in todo:
        result = medharden(*words, cwd=desk)
        said = f"{words}\n{result.stdout}{result.stderr}"
        assert result.returncode in ((0, 3, 4) if words[0] in ("harden", "gate") else (0,)), said
        if words[:2] == ["protocol", "new"]:
            mine = desk / "mine.yaml"
            mine.write_text(re.sub(r"^hardening: .*\n", "", mine.read_text(), flags=re.M) + QUICK)
    assert (desk / "run" / "report.html").is_file()


@pytest.mark.parametrize("page", SHORT, ids=lambda p: p.name)
def test_a_page_for_newcomers_is_short(page: Path) -> None:
    limit = 600 if page.name.startswith("start-") else 900
    assert len(page.read_text(encoding="utf-8").split()) < limit
