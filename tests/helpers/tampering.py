"""Changes a signed run directory one random byte at a time, file after file, and lists what `verify` did not name.

python tests/helpers/tampering.py RUN KEY.pub changes 1000 bytes of the directory, one after the other, each put back.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from medharden.audit.keys import PublicKey, load_public_key
from medharden.verifying import check_run

TIMES = 1000


def missed_changes(run: Path, keys: Sequence[PublicKey], seed: int = 1) -> list[tuple[str, int, int, list[str]]]:
    """File, place and flipped bits of each change whose file was not among the faults, with the files that were."""
    files = sorted(p for p in run.rglob("*") if p.is_file())
    chance = random.Random(seed)
    missed = []
    for number in range(TIMES):
        path = files[number % len(files)]
        place, flip = chance.randrange(path.stat().st_size), chance.randrange(1, 256)
        _flip(path, place, flip)
        named = {fault.file for fault in check_run(run, keys).faults}
        _flip(path, place, flip)
        if path.relative_to(run).as_posix() not in named:
            missed.append((path.relative_to(run).as_posix(), place, flip, sorted(named)))
    return missed


def _flip(path: Path, place: int, bits: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        (old,) = stream.read(1)
        stream.seek(place)
        stream.write(bytes([old ^ bits]))


if __name__ == "__main__":
    found = missed_changes(Path(sys.argv[1]), [load_public_key(Path(sys.argv[2]))])
    print(f"{TIMES - len(found)} of {TIMES} changes named", *found, sep="\n")
