"""The command line: one file per verb, loaded when it is asked for.

Data goes to standard output, everything else to standard error. Exit codes: 0 ok, 1 findings, 2 usage or input, 3 login
or gate, 4 Hub or network, 5 engine or hardware, 6 interrupted and resumable.
"""

from __future__ import annotations

import errno
import importlib
import io
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from publisher import __version__
from publisher.errors import InterruptedRun, PublisherError

Callback = Callable[..., Any]
Decorator = Callable[[Callback], Callback]
PIPE_CLOSED = 128 + signal.SIGPIPE  # as a shell tells of every program whose reader has gone
# What a person can mend: no room, no permission, something else under that name.
REFUSED = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR,
        errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP,
    }
)  # fmt: skip

# verb -> one line for the overview; the module `publisher.cli.<verb>` holds `command`.
VERBS = {
    "recipes": "List the ready recipes of published checkpoints, or write one out to be edited.",
    "plan": "Say what a recipe would do, module by module, and refuse what cannot work.",
    "quantize": "Quantize a source as a recipe says.",
    "calibrate": "Run a model on text and keep the range of every layer's inputs.",
    "validate": "Check a checkpoint against the rules.",
    "inspect": "Say what a checkpoint holds: dtypes, coverage, sizes, what it declares.",
    "diff": "Say what differs between two checkpoints or two recipes.",
    "fix": "Repair index, declarations, exclude list and side files; never a weight.",
    "convert": "Write an NVFP4 checkpoint in another layout, its codes untouched.",
    "eval": "Compare benchmark results with a baseline's, or measure both with lm-evaluation-harness.",
    "card": "Render a model card from the files, or compare any card with them.",
    "push": "Quantize, validate, write the card, publish and prove what arrived.",
    "verify": "Compare a published repository with its manifest, its licence, its gate.",
    "access": "List, accept, reject, grant or export who may download from a gated repository.",
    "rules": "List the rules, or explain one.",
    "jobs": "List, follow or cancel runs.",
    "doctor": "Say what this machine can do and what is missing.",
    "ui": "Open the browser app.",
    "version": "Print the versions that matter.",
}


class Verbs(click.Group):
    """A group that imports a verb's module only when the verb is used, so that `--help` stays instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, None for an unknown one."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"publisher.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without importing any verb."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="publisher")
def publisher() -> None:
    """Quantize a language model to FP4, prove the result right, publish it gated on the Hugging Face Hub.

    \b
    publisher plan recipe.yaml                 what would happen
    publisher push recipe.yaml                 everything, resumable
    publisher validate ./checkpoint            any folder
    publisher validate hf://org/name           any repository, by its headers
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the scripts; ends the process with the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without our signs is no reason to fail
    try:
        code = _run(arguments)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        _document(PublisherError(error.format_message(), hint="See `publisher --help`."), arguments)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _fail(InterruptedRun("Interrupted.", hint="Run the same command again to go on."), arguments)
    except PublisherError as error:
        _fail(error, arguments)
    except OSError as error:
        if error.errno not in REFUSED:
            _fail(_bug(traceback.format_exc()), arguments)
        _fail(_refused(error), arguments)
    except Exception:  # noqa: BLE001 - a bug: keep the traceback in a file, tell the user in a sentence
        _fail(_bug(traceback.format_exc()), arguments)


def _run(arguments: list[str]) -> Any:
    try:
        return publisher.main(arguments, prog_name="publisher", standalone_mode=False)
    except SystemExit:  # how click ends when nobody reads on: with 1, which would say that there are findings
        return PIPE_CLOSED


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(error: PublisherError, arguments: list[str]) -> None:
    from publisher.cli.output import print_error

    print_error(error)
    _document(error, arguments)
    sys.exit(error.exit_code)


def _document(error: PublisherError, arguments: list[str]) -> None:
    """The error as the JSON document that was asked for."""
    from publisher.cli.output import print_error_document

    if _format_of(arguments) in ("json", "jsonl"):
        print_error_document(error)


def _refused(error: OSError) -> PublisherError:
    """What a disk or a permission refused, as a sentence."""
    place = f"{error.filename}: " if error.filename else ""
    return PublisherError(
        f"{place}{error.strerror or error}.",
        hint="Make room, fix the permission or name another place, then run the same command again.",
    )


def _format_of(arguments: list[str]) -> str:
    """The `--format` asked for, read off the raw arguments: the command may have failed before it was parsed."""
    for position, argument in enumerate(arguments):
        if argument.startswith("--format="):
            return argument.partition("=")[2]
        if argument == "--format":
            return "".join(arguments[position + 1 : position + 2])
    return ""


def _bug(text: str) -> PublisherError:
    from publisher.journal import mask

    with tempfile.NamedTemporaryFile(
        "w", prefix="publisher-error-", suffix=".log", dir=tempfile.gettempdir(), delete=False
    ) as file:
        file.write(f"publisher {__version__}, Python {sys.version}\n{mask(text)}")
    return PublisherError(
        f"This is a bug in publisher: {mask(text.strip().splitlines()[-1])[:300]}",
        hint=f"Please report it with {Path(file.name)}.",
    )


def parameters(*decorators: Decorator) -> Decorator:
    """Several click decorators as one, the first one outermost."""

    def wrap(function: Callback) -> Callback:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return wrap
