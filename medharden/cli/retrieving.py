"""`--dicomweb URL` and `--data dicomweb+URL`: series from a server, for as long as a command takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from medharden.audit import RunFiles
from medharden.cli.console import out, stage_progress
from medharden.cli.pipeline import Job
from medharden.data import load_pseudonym_key
from medharden.data.sources.listing import REMOTE
from medharden.errors import DataError, Interrupted, ModelError, RunError
from medharden.protocol import Protocol, load_protocol
from medharden.record import Finding

__all__ = ["fetched", "with_series"]


@contextmanager
def with_series(job: Job, url: str | None, protocol: str | Path) -> Iterator[Job]:
    """A job with its data as `fetched` gives them."""
    places = fetched(
        job.data, url, protocol, key_file=job.key_file, cache=job.cache, max_decoded=job.max_decoded, model=job.model
    )
    with places as (data, noted):
        yield replace(job, data=data, noted=noted)


@contextmanager
def fetched(
    data: Path,
    url: str | None,
    protocol: str | Path,
    *,
    key_file: Path | None,
    cache: Path | None,
    max_decoded: int,
    model: Path | None,
    silent: bool = False,
) -> Iterator[tuple[Path, tuple[Finding, ...]]]:
    """The data as they are, or the manifest beside series that were retrieved; and what the record says of that.

    Args:
        data: as it was given; a search of a server (dicomweb+https://...) names server and series at once.
        url: of the server; None where the data are local, or are a search.
        protocol: its name, or the run directory that holds it.
        key_file: of the pseudonyms.
        cache: folder that keeps what is retrieved.
        max_decoded: bytes of a series.
        model: what the command is to read too: a long retrieval is not begun for nothing.
        silent: whether nothing is said of how far it is.

    Raises:
        DataError: the series can't be had.
        ModelError: there is no such model.
        RunError: the run directory has no protocol.
    """
    searched = str(data).lower().startswith(REMOTE)
    if url is None and not searched:
        yield data, ()
        return
    if url is not None and searched:
        raise DataError("--data is a DICOMweb server's address already; leave --dicomweb out")
    from medharden.data.dicomweb.address import address_of
    from medharden.data.dicomweb.query import query_of
    from medharden.data.dicomweb.retrieving import retrieved

    table = query_of(data) if searched else data
    address = address_of(url or "") if isinstance(table, Path) else table.address
    if model is not None and not model.exists():
        raise ModelError(f"there is no model file {model.name}; nothing was retrieved")
    if isinstance(protocol, Path) and not (protocol / "protocol.yaml").is_file():
        raise RunError(f"{protocol} is no run directory: it has no protocol.yaml; nothing was retrieved")
    read: Protocol = RunFiles(protocol).protocol() if isinstance(protocol, Path) else load_protocol(protocol)
    key = load_pseudonym_key(key_file)
    with ExitStack() as held:
        try:
            with nullcontext() if silent else stage_progress() as progress:
                found = held.enter_context(
                    retrieved(table, read, address, key=key, cache=cache, max_decoded=max_decoded, progress=progress)
                )
        except KeyboardInterrupt:
            kept = "nothing was kept" if cache is None else "series that came whole are in the cache"
            raise Interrupted(f"{kept}; run the same command again to go on") from None
        if found.known and not silent:
            out.say("the server was not searched anew: the cache has the answer of before, and the series it names")
        yield found.data, found.noted
