"""`medharden keygen`, `sign` and `verify`: need no torch, but to run the clean path."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from medharden.audit import RunFiles
from medharden.audit.keys import load_signing_key, write_key_pair
from medharden.cli.console import marked, out, stage_progress
from medharden.cli.verdicts import required_digest
from medharden.errors import KeyFileError
from medharden.extras import missing
from medharden.sizes import MAX_DECODED
from medharden.text import neutral
from medharden.verifying import Signatory, Verification, sign, verify

__all__ = ["FAULTY", "Check", "passphrase_of", "run_keygen", "run_sign", "run_verify"]

FAULTY = 5
"""The exit code of a run directory that is not as it was recorded."""

_PASSPHRASE = "MEDHARDEN_SIGNING_PASSPHRASE"  # noqa: S105 - a variable's name


@dataclass(frozen=True)
class Check:
    """What `verify` was asked to check."""

    run: Path
    public_keys: tuple[Path, ...]
    require_signature: bool
    protocol: str | None
    model: Path | None
    data: Path | None
    arch: str | None
    key_file: Path | None
    workers: int
    max_decoded: int = MAX_DECODED


def run_keygen(path: Path) -> None:
    """Makes a key pair and prints where it lies."""
    beside, key = write_key_pair(path)
    lines = (
        f"wrote {path}: the private key, for you alone; keep it out of run directories",
        f"wrote {beside}: the public key, for whoever verifies",
        f"key {key.key_id}",
    )
    out.show(lines, {"private": str(path), "public": str(beside), "key": key.key_id})


def run_sign(run: Path, key_file: Path, who: Signatory, *, supersede: bool) -> None:
    """Signs a run directory and prints what was signed."""
    if key_file.resolve().is_relative_to(run.resolve()):
        raise KeyFileError("the private key lies in the run directory, which is for sharing; keep it elsewhere")
    key = load_signing_key(key_file, passphrase_of(key_file))
    path = sign(run, key, who, render=_render, supersede=supersede)
    machine = {"signature": str(path), "key": key.public.key_id, **asdict(who)}
    said = f"signed by {who.name}, {who.role}: {who.meaning}"
    out.show([said, f"wrote {path}", f"key {key.public.key_id}"], machine)


def run_verify(check: Check) -> int:
    """Checks a run directory, prints what was found and returns the exit code."""
    key = None
    if check.data is not None:
        from medharden.data import load_pseudonym_key

        key = load_pseudonym_key(check.key_file)
    with stage_progress() as progress:
        found = verify(
            check.run,
            public_keys=check.public_keys,
            require_signature=check.require_signature,
            protocol=required_digest(check.protocol),
            render=_render_if_here,
            model=check.model,
            data=check.data,
            arch=check.arch,
            pseudonym_key=key,
            workers=check.workers,
            max_decoded=check.max_decoded,
            progress=progress,
        )
    code = 0 if found.whole else FAULTY
    state = {"whole": found.whole, "signed": found.signed, "verified": found.verified, "exit_code": code}
    machine = asdict(found) | state
    out.show(_shown(found), machine)
    return code


def _render(files: RunFiles) -> Mapping[str, bytes]:
    from medharden.reporting import report_files  # here, since a run without reports needs none of what renders

    return report_files(files)


def _render_if_here(files: RunFiles) -> Mapping[str, bytes] | None:
    """None where what renders is not installed: reports then rest on their digests and signatures."""
    try:
        return _render(files)
    except ModuleNotFoundError as error:
        if missing(error) is None:
            raise
        return None


def passphrase_of(path: Path) -> bytes | None:
    """From the environment, or asked for on a terminal; None for a key that is not encrypted."""
    given = os.environ.get(_PASSPHRASE)
    if given:
        return given.encode()
    try:
        encrypted = b"ENCRYPTED" in path.read_bytes()
    except OSError:
        return None  # reading the key says what is wrong
    if encrypted and sys.stdin.isatty():
        return str(typer.prompt(f"Passphrase of {neutral(path.name)}", hide_input=True, err=True)).encode()
    return None


def _shown(found: Verification) -> Group:
    parts: list[Table | Text | str] = []
    if found.signatures:
        table = Table("signed by", "role", "meaning", "reason", "time", "key", "", box=None, padding=(0, 1))
        for s in found.signatures:
            state = marked("[yellow]not checked[/]")
            if s.verified:
                state = marked("[green]verified[/]" if found.whole else "[yellow]of this key, over other files[/]")
            cells = (s.name, s.role, s.meaning, s.reason, s.time, s.key[:16])
            table.add_row(*cells, state)
        parts.append(table)
    if found.clean_path is not None:
        c = found.clean_path
        weights = "equal" if c.state_equal else "different"
        answers = f"; logits of {c.cases} cases {'equal bit for bit' if c.logits_equal else 'different'}"
        parts.append(f"clean path: weights {weights}{answers if c.cases else ''}")
    parts += [_protocol(found), _files(found)]
    parts += [marked("[red]wrong[/] {}: {}", f.file, f.reason) for f in found.faults]
    parts += [marked("[yellow]not covered[/] {}", name) for name in found.uncovered]
    parts += [f"· {note}" for note in found.notes]
    if found.head:
        parts.append(f"log: {found.events} events, head {found.head}")
    return Group(*parts, _last_line(found))


def _protocol(found: Verification) -> str:
    digest = f"sha256 {found.protocol[:12] or 'unreadable'}"
    if found.protocol_required:
        return f"protocol: {digest}, {'' if found.protocol == found.protocol_required else 'not '}as required"
    return f"protocol: the run's own, {digest}: whoever made the run chose what it asks; --protocol requires yours"


def _files(found: Verification) -> str:
    if not found.whole:
        return f"{len(found.faults)} {'file' if len(found.faults) == 1 else 'files'} wrong"
    counts = (
        (found.covered, "signed"),
        (found.recorded, "as logged"),
        (found.rendered, "rendered anew alike"),
    )
    parts = [f"{len(names)} {words}" for names, words in counts if names]
    return f"{'files: ' if sum(len(names) for names, _ in counts) != 1 else 'file: '}{', '.join(parts)}"


def _last_line(found: Verification) -> Text:
    """No more than what was checked: whole files are no signature."""
    if not found.whole:
        word = "[bold red]not verified[/]"
    elif found.signed:
        word = "[bold green]verified[/]"
    else:
        word = "[bold yellow]the files are whole; nobody's signature was checked[/]"
    return marked(f"{word} · the verdict on record is {{}}", found.verdict) if found.verdict else marked(word)
