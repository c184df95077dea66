"""The command line: parse, call one verb, print, map the outcome to an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from medharden.errors import Interrupted, MedHardenError
from medharden.extras import missing
from medharden.foreign import own_place, place_of
from medharden.heap import share_one_heap
from medharden.shortage import shortage

__all__ = ["main"]


class _Stopped(KeyboardInterrupt):
    """Ctrl-C, or a scheduler's SIGTERM.

    Not KeyboardInterrupt itself: where that passes through code compiled from text, as named tuples are while a library
    is imported, CPython ends `python -m` by the signal later on, whatever exit code is asked for.
    """


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _complete(app: Callable[[], object]) -> None:
    """Runs the command; a package that an extra brings is asked for by it, and what the machine ran out of is said."""
    try:
        app()
    except MedHardenError:
        raise
    except Exception as error:
        lacking = missing(error) if isinstance(error, ModuleNotFoundError) else shortage(error)
        if lacking is None:
            raise
        raise lacking from error


_TOGETHER = ("harden", "evaluate")  # what several processes do together


def _idle() -> bool:
    """Whether another process of those started together does it all: a command that is dealt to none of them."""
    several = os.environ.get("WORLD_SIZE", "1") not in ("", "1") and os.environ.get("RANK", "0") != "0"
    return several and (sys.argv[1:2] not in [[name] for name in _TOGETHER] or "--dry-run" in sys.argv)


def main() -> None:
    """Runs the command line; the one place where errors become messages and exit codes."""
    if _idle():
        return
    share_one_heap()
    from medharden.cli.app import app
    from medharden.cli.console import report_error, widen_streams

    widen_streams()

    # a scheduler that ends a job early is answered as Ctrl-C is: the log is closed, and the run can go on
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in a shell's background
        signal.signal(signal.SIGINT, _stop)
    try:
        _complete(app)
    except MedHardenError as error:
        report_error(str(error), type(error).__name__, error.exit_code)
        sys.exit(error.exit_code)
    except (Interrupted, KeyboardInterrupt) as error:
        report_error(str(error) or "stopped", "Interrupted", Interrupted.exit_code)
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        if os.environ.get("MEDHARDEN_DEBUG"):
            raise
        own = own_place(error)
        what = f"your own code stopped: {own}" if own else f"a defect in medharden or a library: {place_of(error)}"
        report_error(
            f"{what}. Its text is withheld, as it may hold patient data; set MEDHARDEN_DEBUG=1 to see it",
            "UserCodeError" if own else "InternalError",
            1,
        )
        sys.exit(1)
