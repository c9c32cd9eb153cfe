"""The command line: the verbs of the two floors below, put together. Nothing else.

Heavy imports stay inside the verbs, so that ``aape --help`` is instant.
"""

from __future__ import annotations

import sys

import typer

from .adapter.commands import evaluate, extend, predict, report, suites, sweep, train
from .pipeline.commands import bank, datasets, encoders, prompts

app = typer.Typer(
    name="aape",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Adapt CLIP-like models to your own images with what language models know about them.",
)
for verbs in (prompts, train, predict, extend, sweep, suites, report, encoders):
    app.add_typer(verbs.app)
app.add_typer(bank.bank_app, name="bank")
app.add_typer(datasets.datasets_app, name="datasets")
app.add_typer(evaluate.eval_app, name="eval")


def main() -> None:
    """Run the command line: a :class:`UserError` is one clear sentence and exit status 2."""
    from .pipeline.errors import UserError

    try:
        app(standalone_mode=True)
    except UserError as error:
        typer.secho(f"aape: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.secho("aape: interrupted; run the same command again to go on.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
