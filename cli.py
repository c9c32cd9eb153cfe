"""The command line: the verbs of the two floors below, put together; errors and ends in words.

Heavy imports stay inside the verbs, so that ``aape --help`` is instant.
"""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .adapter.commands import (
    caption,
    doctor,
    evaluate,
    explain,
    export,
    extend,
    options,
    predict,
    report,
    search,
    serve,
    share,
    suites,
    sweep,
    train,
)
from .pipeline.commands import bank, datasets, encode, encoders, prompts

app = typer.Typer(
    name="aape",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Adapt CLIP-like models to your own images with what language models know about them.",
    epilog="-q and -v may stand anywhere. Settings: aape options. In Python: import aape.",
)
for verbs in (
    prompts,
    train,
    predict,
    extend,
    explain,
    search,
    caption,
    sweep,
    suites,
    report,
    options,
    serve,
    export,
    share,
    doctor,
    encode,
    encoders,
):
    app.add_typer(verbs.app)
app.add_typer(bank.bank_app, name="bank")
app.add_typer(datasets.datasets_app, name="datasets")
app.add_typer(evaluate.eval_app, name="eval")
INTERRUPTED, STOPPED = 128 + signal.SIGINT, 128 + signal.SIGTERM
_ANYWHERE = {"-q": "--quiet", "--quiet": "--quiet", "-v": "--verbose", "--verbose": "--verbose"}
# verbs that several processes of torchrun can share
_SHARED = ("encode", "train-captions")
# a disk that is full, over its quota, or broken
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_verbose = False


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"aape {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors alone.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Times, and where an error arose.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Take the options that every verb has."""
    global _verbose
    _verbose = verbose
    if _rank() is not None and context.invoked_subcommand not in _SHARED:
        from .pipeline.errors import UserError

        raise UserError(
            f"aape {context.invoked_subcommand} is not for several processes of torchrun.",
            f"They can share: aape {', aape '.join(_SHARED)}; what these keep is found by one.",
        )
    if quiet or verbose:
        from .pipeline import progress

        progress.speak(quiet=quiet, times=verbose)


def _rank() -> int | None:
    """Return the number of this process among those of torchrun, if it is one of several."""
    if not os.environ.get("RANK"):
        return None
    from .pipeline.ranks import launch

    started = launch()
    return None if started is None else started.rank


def _ask_again(ignored: sys.UnraisableHookArgs) -> None:
    """Interrupt again a little later, where the interrupt came within code that ignores errors."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        again = threading.Timer(0.05, _thread.interrupt_main)
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(ignored)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every end has its exit status.

    0: done. 1: a check found something. 2: bad input, in one sentence. 130: interrupted, 143:
    stopped by SIGTERM; the same command goes on where it was.
    """
    from .pipeline.errors import UserError

    stopped: list[int] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = _ask_again
    words = _first(sys.argv[1:] if arguments is None else list(arguments))
    rank = None
    try:
        rank = _rank()
        if rank:  # the first process alone prints
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        status = app(words, prog_name="aape", standalone_mode=False)
    except UserError as error:
        if _verbose:
            import traceback

            traceback.print_exc()
        _say(f"aape{f' (process {rank})' if rank else ''}: {error}", error=True)
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        status = _drop_output()
    except SystemExit as end:
        # click and rich end with 1 where a reader such as head has left, and 1 is a finding
        if not _is_of_a_closed_pipe(end):
            raise
        status = _drop_output()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            shown = str(error.filename or "It")[:60]
            _say(f"aape: {shown}… is longer than the name of a file may be.", error=True)
            status = 2
        elif error.filename is not None or error.errno not in _NO_PLACE:
            raise
        else:
            status = _no_place(error)
    except Exception as error:
        show = getattr(error, "show", None)  # a misspelt option; typer's own class of it varies
        if show is None:
            raise
        show(file=sys.stderr)
        status = getattr(error, "exit_code", 2)
    try:
        if sys.stdout is not None:  # closed by >&-
            sys.stdout.flush()
    except BrokenPipeError:
        status = status or _drop_output()
    except OSError as error:
        status = _no_place(error)
    if status == INTERRUPTED and not rank:
        _say(
            f"aape: {'stopped' if stopped else 'interrupted'}. Run the same command again to go"
            " on: what was finished is kept."
        )
    if status == INTERRUPTED and stopped:
        status = STOPPED
    sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> int:
    """Send what is left in the buffer nowhere: its reader has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _is_of_a_closed_pipe(end: BaseException | None) -> bool:
    while end is not None and not isinstance(end, BrokenPipeError):
        end = end.__cause__ or end.__context__
    return end is not None


def _no_place(error: OSError) -> int:
    _drop_output()
    _say(f"aape: The output cannot be written: {error.strerror}. Choose another place.", error=True)
    return 2


def _first(words: list[str]) -> list[str]:
    """Put -q and -v before the verb, where the app looks for them."""
    end = words.index("--") if "--" in words else len(words)
    moved = [_ANYWHERE[word] for word in words[:end] if word in _ANYWHERE]
    rest = [word for word in words[:end] if word not in _ANYWHERE]
    return [*moved, *rest, *words[end:]]


def _say(text: str, error: bool = False) -> None:
    from .pipeline.terminal import visible

    colour = error and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    text = visible(text)
    typer.echo(f"\033[31m{text}\033[0m" if colour else text, err=True)


if __name__ == "__main__":
    main()
