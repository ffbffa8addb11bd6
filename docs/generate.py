"""Write the generated documents: the command reference, the table of rules, the faults a push survives.

`python docs/generate.py` writes them, `python docs/generate.py --check` fails when one is not current.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from publisher import catalogue
from publisher.cli import VERBS, publisher
from publisher.cli.card import Card

ROOT = Path(__file__).resolve().parent.parent


def commands() -> str:
    """The command reference: `--help` of every verb."""
    parts = [
        "# Commands",
        "",
        "Generated from `--help` by `make docs`. Data goes to standard output, everything else to standard error.",
        "Exit codes: 0 ok, 1 findings, 2 usage or input, 3 login or gate, 4 Hub or network, 5 engine or hardware,",
        "6 interrupted and resumable, 141 the reader of the output went away.",
    ]
    parent = click.Context(publisher, info_name="publisher", max_content_width=100, terminal_width=100)
    for verb, summary in VERBS.items():
        command = publisher.get_command(parent, verb)
        if command is None:
            raise SystemExit(f"no command for {verb}")
        parts += ["", f"## publisher {verb}", "", summary, *_help(command, verb, parent)]
    return "\n".join(parts) + "\n"


def _help(command: click.Command, name: str, parent: click.Context) -> list[str]:
    """The help of a verb and of the parts it has, such as `eval run`."""
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    lines = ["", "```text", command.get_help(context), "```"]
    if isinstance(command, click.Group) and not isinstance(command, Card):  # whose help holds that of its parts
        for part in command.list_commands(context):
            found = command.get_command(context, part)
            if found is not None:
                lines += _help(found, part, context)
    return lines


def faults() -> str:
    """The table that `tests/hub/test_faults.py` runs, row by row."""
    sys.path.insert(0, str(ROOT))
    from tests.hub.faults import markdown

    return markdown()


def documents() -> dict[Path, str]:
    """Path to content of every generated document."""
    return {
        ROOT / "docs/commands.md": commands(),
        ROOT / "docs/faults.md": faults(),
        ROOT / "validators/README.md": catalogue.rules_markdown(),
    }


def main() -> int:
    """Write the documents, or check them."""
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not current; run `make docs`")
        return 1 if stale else 0
    for path in stale:
        path.write_text(documents()[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
