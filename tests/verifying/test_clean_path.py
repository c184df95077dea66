"""`verify` with the original model: the released clean path against it, by weights and by every case's logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import ARCH, KEY, tiny_cohort, tiny_model, tiny_protocol, write_archive

from medharden.errors import RunError
from medharden.hardening import harden
from medharden.verifying import verify


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, an archive and a run hardened for one epoch."""
    folder = tmp_path_factory.mktemp("shop")
    protocol = tiny_protocol()
    protocol = protocol.model_copy(update={"hardening": protocol.hardening.model_copy(update={"epochs": 1})})
    harden(tiny_model(folder), tiny_cohort(folder, protocol), protocol, folder / "run")
    return folder


def test_the_clean_path_equals_the_original_in_weights_and_in_the_logits_of_every_case(shop: Path) -> None:
    found = verify(shop / "run", model=shop / "model.pt", data=shop / "tiny.npz", arch=ARCH, pseudonym_key=KEY)
    assert not found.faults
    assert found.clean_path is not None
    assert (found.clean_path.state_equal, found.clean_path.logits_equal, found.clean_path.cases) == (True, True, 400)
    assert found.clean_path.max_abs_difference == 0.0
    weights_alone = verify(shop / "run", model=shop / "model.pt", arch=ARCH)
    assert weights_alone.clean_path is not None
    assert (weights_alone.whole, weights_alone.clean_path.cases) == (True, 0)


def test_one_bit_of_another_original_is_seen_in_weights_and_logits(shop: Path, tmp_path: Path) -> None:
    state = torch.load(shop / "model.pt", weights_only=True)
    name = next(iter(state))
    state[name].view(torch.int32).view(-1)[0] ^= 1 << 22
    torch.save(state, tmp_path / "other.pt")
    found = verify(shop / "run", model=tmp_path / "other.pt", data=shop / "tiny.npz", arch=ARCH, pseudonym_key=KEY)
    assert {fault.file for fault in found.faults} == {"harden.json", "hardened.safetensors"}
    assert found.clean_path is not None
    assert not found.clean_path.logits_equal
    assert found.clean_path.max_abs_difference > 0


@pytest.mark.parametrize("change", ["other data", "other key"])
def test_other_data_or_another_key_are_named(shop: Path, tmp_path: Path, change: str) -> None:
    data = shop / "tiny.npz" if change == "other key" else write_archive(tmp_path / "tiny.npz", seed=5)
    key = b"another key of 32 bytes........." if change == "other key" else KEY
    found = verify(shop / "run", model=shop / "model.pt", data=data, arch=ARCH, pseudonym_key=key)
    assert {fault.file for fault in found.faults} == {"cohort.json"}


def test_weights_that_are_not_those_on_record_are_not_run(shop: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(shop / "run", tmp_path / "run")
    (tmp_path / "run" / "hardened.safetensors").write_bytes(b"no weights at all")
    found = verify(tmp_path / "run", model=shop / "model.pt", arch=ARCH)
    assert {fault.file for fault in found.faults} == {"hardened.safetensors"}
    assert found.clean_path is None
    assert any("was not run" in note for note in found.notes)


def test_data_need_a_model(shop: Path) -> None:
    with pytest.raises(RunError, match="expected --model"):
        verify(shop / "run", data=shop / "tiny.npz", pseudonym_key=KEY)
