"""Killed and called again: hardening goes on within an epoch, to the same weights bit for bit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny import tiny_cohort, tiny_model, tiny_protocol

from medharden.data import Cohort
from medharden.errors import OutputError, RunError
from medharden.hardening import harden
from medharden.hardening.perturbations import PerturbationFiles
from medharden.models import Classifier
from medharden.protocol import Protocol


def settings(method: str = "carried", clean_share: float = 0.2) -> Protocol:
    """Few epochs, and some cases of each batch that are not attacked."""
    protocol = tiny_protocol()
    fields = protocol.model_dump()
    fields["hardening"] |= {
        "epochs": 16 if method == "free" else 4,
        "method": method,
        "clean_share": clean_share,
        "shift": 1,
        "photometric": 0.1,
    }
    return type(protocol).model_validate(fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def cohort(folder: Path) -> Cohort:
    return tiny_cohort(folder, settings())


@pytest.fixture(scope="module")
def original(folder: Path, cohort: Cohort) -> Classifier:
    return tiny_model(folder, cohort=cohort)


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted: its weights, and what its progress said at the start and after each step."""

    weights: str
    said: list[int]


def uninterrupted(original: Classifier, cohort: Cohort, protocol: Protocol, run: Path) -> Whole:
    progress, heard = stopped_at(None)
    weights = harden(original, cohort, protocol, run, progress=progress).hardened
    epochs = 4
    each = (len(heard) - 1) // epochs  # the steps of an epoch, and its end
    assert heard[:2] == [0, 0], "it begins, and is ready"
    return Whole(weights, [said for n, said in enumerate(heard[1:]) if n == 0 or n % each])


@pytest.fixture(scope="module")
def whole(folder: Path, cohort: Cohort, original: Classifier) -> Whole:
    return uninterrupted(original, cohort, settings(), folder / "whole")


def stopped_at(said: int | None):
    """A progress that interrupts where it says so, and what it said until then."""
    heard: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "harden":
            heard.append(done)
            if done == said:
                raise KeyboardInterrupt

    return progress, heard


@pytest.mark.parametrize("method", ["carried", "free", "pgd", "trades"])
def test_a_run_interrupted_within_an_epoch_goes_on_there_to_the_same_weights(
    tmp_path: Path, cohort: Cohort, original: Classifier, method: str
) -> None:
    protocol = settings(method)
    wanted = uninterrupted(original, cohort, protocol, tmp_path / "whole")
    for at in (3, 8, 13):
        progress, _ = stopped_at(wanted.said[at])
        with pytest.raises(KeyboardInterrupt):
            harden(original, cohort, protocol, tmp_path / "run", checkpoint_minutes=0, progress=progress)
    progress, heard = stopped_at(None)
    record = harden(original, cohort, protocol, tmp_path / "run", progress=progress)
    assert heard[0] == wanted.said[12], "the step whose checkpoint was not written yet is done again"
    assert record.hardened == wanted.weights
    assert [f.code for f in record.findings].count("hardening.begun_anew") == 0
    left = {path.name for path in (tmp_path / "run").iterdir() if path.name.startswith("harden.")}
    assert left == {"harden.json"}


def test_a_checkpoint_within_an_epoch_is_written_when_it_is_due_alone(
    tmp_path: Path, cohort: Cohort, original: Classifier, whole: Whole
) -> None:
    progress, _ = stopped_at(whole.said[13])
    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, settings(), tmp_path, checkpoint_minutes=60, progress=progress)
    progress, heard = stopped_at(None)
    assert harden(original, cohort, settings(), tmp_path, progress=progress).hardened == whole.weights
    assert whole.said[8] < heard[0] < whole.said[9], "the second epoch is taken up"


def test_a_checkpoint_of_another_version_is_not_taken_up_and_that_is_said(
    tmp_path: Path, cohort: Cohort, original: Classifier, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, _ = stopped_at(whole.said[13])
    monkeypatch.setattr("medharden.hardening.run._FORMAT", 1)
    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, settings(), tmp_path, progress=progress)
    monkeypatch.undo()
    progress, heard = stopped_at(None)
    again = harden(original, cohort, settings(), tmp_path, progress=progress)
    assert (again.hardened, heard[0]) == (whole.weights, 0)
    assert "another version" in next(f.message for f in again.findings if f.code == "hardening.begun_anew")


@pytest.mark.parametrize("file", ["harden.carried.0", "harden.carried.1", "harden.probe.0"])
@pytest.mark.parametrize("change", ["one byte", "gone", "another turn"])
def test_perturbations_that_are_not_this_run_s_are_not_taken_up_and_that_is_said(
    tmp_path: Path, cohort: Cohort, original: Classifier, whole: Whole, file: str, change: str
) -> None:
    progress, _ = stopped_at(whole.said[20])
    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, settings(), tmp_path, checkpoint_minutes=0, progress=progress)
    path = tmp_path / file
    data = bytearray(path.read_bytes())
    if change == "one byte":
        size = len(data) // (200 if "carried" in file else 60)
        for row in range(0, len(data), size):
            data[row] ^= 1
        path.write_bytes(data)
    elif change == "gone":
        path.unlink()
    else:
        other = path.with_suffix(".1" if file.endswith("0") else ".0")
        path.write_bytes(other.read_bytes())
    progress, heard = stopped_at(None)
    again = harden(original, cohort, settings(), tmp_path, progress=progress)
    assert again.hardened == whole.weights
    assert "hardening.begun_anew" in [f.code for f in again.findings]
    assert heard[0] == 0


def test_a_link_in_the_place_of_perturbations_is_refused(tmp_path: Path, cohort: Cohort, original: Classifier) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.write_bytes(b"mine")
    (run / "harden.carried.0").symlink_to(elsewhere)
    with pytest.raises(RunError, match=r"harden\.carried\.0"):
        harden(original, cohort, settings(), run)
    assert elsewhere.read_bytes() == b"mine"


def test_the_checkpoint_does_not_grow_with_the_cases(
    tmp_path: Path, cohort: Cohort, original: Classifier, whole: Whole
) -> None:
    progress, _ = stopped_at(whole.said[13])
    with pytest.raises(KeyboardInterrupt):
        harden(original, cohort, settings(), tmp_path, progress=progress)
    data = (tmp_path / "harden.checkpoint").read_bytes()[:-32]
    (tmp_path / "bare").write_bytes(data)
    saved = torch.load(tmp_path / "bare", weights_only=True)["training"]
    cases = {name: tuple(t.shape) for name, t in saved["adversary"].items()}
    assert cases == {"scale": (200,), "share": (200,), "visited": (200,)}
    assert "codes" not in saved["probe"]["adversary"]
    file = (tmp_path / "harden.carried.0").stat()
    assert 190 * (256 + 32) < file.st_size <= 200 * (256 + 32)
    assert file.st_mode & 0o777 == 0o600


def test_rows_are_read_as_the_turn_before_left_them_and_only_under_their_seal(tmp_path: Path) -> None:
    where = PerturbationFiles(tmp_path, b"a seal", "this run")
    codes, one = where.of("carried", (3, 1, 2, 2)), torch.tensor([1])
    first, second = torch.full((1, 1, 2, 2), 5, dtype=torch.int8), torch.full((1, 1, 2, 2), -7, dtype=torch.int8)
    codes.turn(1)
    codes[one] = first
    assert torch.equal(codes[one], first)
    codes.turn(2)
    codes[one] = second
    assert torch.equal(codes[one], second)
    again = where.of("carried", (3, 1, 2, 2))
    again.turn(2)
    assert torch.equal(again[one], first), "a turn that was interrupted begins from what the one before left"
    assert again.holds(1, [1])
    assert again.holds(2, [1])
    assert not again.holds(3, [1])
    assert not again.holds(1, [0])
    for other in (
        PerturbationFiles(tmp_path, b"another", "this run"),
        PerturbationFiles(tmp_path, b"a seal", "another run"),
    ):
        assert not other.of("carried", (3, 1, 2, 2)).holds(2, [1])
    again.turn(3)
    again.carry([1])
    again.turn(4)
    assert torch.equal(again[one], second)
    with pytest.raises(RunError, match="not as this run left it"):
        again[torch.tensor([0])]


def test_a_full_disk_under_the_perturbations_is_said_with_what_they_need(
    tmp_path: Path, cohort: Cohort, original: Classifier, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medharden.hardening import perturbations

    pwrite, left = os.pwrite, [700]

    def full(handle: int, data: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, os.strerror(28))
        return pwrite(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(perturbations.os, "pwrite", full)
        with pytest.raises(OutputError, match=r"No space left on device.*KiB free for perturbations"):
            harden(original, cohort, settings(), tmp_path)
    assert harden(original, cohort, settings(), tmp_path).hardened == whole.weights
