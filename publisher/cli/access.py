"""`publisher access`: who asked for a gated repository, and who gets in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import parameters
from publisher.cli.output import Output, format_option
from publisher.errors import PublisherError

if TYPE_CHECKING:
    from publisher.hub.access import AccessRequest, Decision, State
    from publisher.hub.huggingface import HuggingFaceTarget

ACTIONS = ("list", "accept", "reject", "grant", "export")


@click.command(
    "access",
    epilog="Examples: publisher access list hf://org/name   publisher access accept hf://org/name ada --yes   "
    "publisher access export hf://org/name --output requests.csv",
)
@parameters(
    click.argument("action", type=click.Choice(ACTIONS)),
    click.argument("place"),
    click.argument("users", nargs=-1),
    click.option(
        "--state",
        type=click.Choice(["pending", "accepted", "rejected", "all"]),
        help="Which requests to list (pending) or export (all).",
    ),
    click.option("--all", "everybody", is_flag=True, help="Accept or reject every pending request."),
    click.option("--reason", help="What the rejected are told."),
    click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Export to this CSV file."),
    click.option("--dry-run", is_flag=True, help="Say who is meant and change nothing."),
    click.option("--yes", is_flag=True, help="Decide on several at once."),
    format_option,
)
def command(
    action: str,
    place: str,
    users: tuple[str, ...],
    state: str | None,
    everybody: bool,
    reason: str | None,
    output: Path | None,
    dry_run: bool,
    yes: bool,
    form: str,
) -> None:
    """List, accept, reject, grant or export access to PLACE, hf://org/name, for USERS.

    USERS are names on the Hub, or ids of requests where the repository hides names. More than one is decided only
    with --yes; without it they are listed. Rejecting somebody who was accepted takes the access away. An exported
    table holds what people wrote, names and mail addresses: it is readable by its owner only.
    """
    printer = Output(form)
    _require_sense(action, users, everybody=everybody, reason=reason, output=output)
    target = _target(place)
    if action == "list":
        _list(printer, target, _states(state or "pending"))
    elif action == "export":
        _export(printer, target, _states(state or "all"), output)
    elif action == "grant":
        _grant(printer, target, users, dry_run=dry_run, yes=yes)
    else:
        wanted: State = "accepted" if action == "accept" else "rejected"
        _decide(printer, target, users, wanted, everybody=everybody, reason=reason, dry_run=dry_run, yes=yes)


def _require_sense(
    action: str, users: tuple[str, ...], *, everybody: bool, reason: str | None, output: Path | None
) -> None:
    """Refuse words that the action has no use for.

    Raises:
        PublisherError: naming the first.
    """
    from publisher.hub.access import user_problem

    deciding = action in ("accept", "reject")
    for given, allowed, name in (
        (bool(users), deciding or action == "grant", "users"),
        (everybody, deciding, "--all"),
        (reason is not None, action == "reject", "--reason"),
        (output is not None, action == "export", "--output"),
    ):
        if given and not allowed:
            raise PublisherError(f"`access {action}` takes no {name}.", hint="See `publisher access --help`.")
    if deciding and bool(users) == everybody:
        raise PublisherError(
            "Name users, or give --all, and not both.", hint="`publisher access list` shows who asked."
        )
    if action == "grant" and not users:
        raise PublisherError("Nobody is named.", hint="Write the users' names after the repository.")
    for problem in filter(None, map(user_problem, users)):
        raise problem


def _target(place: str) -> HuggingFaceTarget:
    from publisher import pipeline
    from publisher.hub.huggingface import HuggingFaceTarget

    target = pipeline.target_at(place)
    if not isinstance(target, HuggingFaceTarget):
        raise PublisherError(f"{place} is a folder; nobody asks for access to it.", hint="Write hf://org/name.")
    return target


def _states(word: str) -> tuple[State, ...]:
    from publisher.hub.access import STATES

    return tuple(state for state in STATES if word in (state, "all"))


def _list(output: Output, target: HuggingFaceTarget, states: tuple[State, ...]) -> None:
    from publisher.hub import access

    found = access.requests(target, states)
    output.data({"place": target.url, "requests": [item.to_json() for item in found]})
    _show(output, found)
    output.say(f"{len(found):,} request(s), {' or '.join(states)}, for {target.url}")


def _show(output: Output, found: Sequence[AccessRequest]) -> None:
    rows = []
    for item in found:
        form = "; ".join(f"{label}: {value}" for label, value in item.form.items())
        rows.append((item.label, item.name or "", item.email or "", item.state, item.time, form))
    if rows:
        output.table(("user", "name", "email", "state", "asked", "form"), rows)


def _export(output: Output, target: HuggingFaceTarget, states: tuple[State, ...], path: Path | None) -> None:
    from publisher.hub import access

    found = access.requests(target, states)
    text = access.table(found)
    if path is None:
        click.echo(text, nl=False)
        return
    _write_private(path, text)
    output.data({"place": target.url, "file": str(path), "requests": len(found)})
    output.say(f"wrote {len(found):,} request(s) to {path}")


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, complete or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _grant(output: Output, target: HuggingFaceTarget, users: tuple[str, ...], *, dry_run: bool, yes: bool) -> None:
    from publisher.hub import access

    names = list(dict.fromkeys(users))
    plan = {"place": target.url, "action": "grant", "users": names}
    if _only_told(output, plan, names, "granted access", dry_run=dry_run, yes=yes):
        return
    _report(output, plan, list(access.grant(target, names)), "granted access")


def _decide(
    output: Output,
    target: HuggingFaceTarget,
    users: tuple[str, ...],
    wanted: State,
    *,
    everybody: bool,
    reason: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    from publisher.hub import access

    found, missing = (access.requests(target), []) if everybody else access.find(target, users)
    if missing:
        raise PublisherError(
            f"{', '.join(missing)[:300]} did not ask for access to {target.url}; nothing was changed.",
            hint="`publisher access grant` lets in who did not ask.",
        )
    open_ = [item for item in found if item.state != wanted]
    for item in found:
        if item.state == wanted:
            output.say(f"{item.label} is {wanted} already")
    plan: dict[str, Any] = {"place": target.url, "action": wanted, "users": [item.label for item in open_]}
    _show(output, open_)
    if _only_told(output, plan, plan["users"], wanted, dry_run=dry_run, yes=yes):
        return
    _report(output, plan, list(access.decide(target, open_, wanted, reason=reason)), wanted)


def _only_told(output: Output, plan: dict[str, Any], names: list[str], what: str, *, dry_run: bool, yes: bool) -> bool:
    """Whether to stop before anything is changed.

    Raises:
        PublisherError: several are meant and nobody said yes.
    """
    count = f"{len(names):,} request(s)" if what != "granted access" else f"{len(names):,} user(s)"
    if dry_run:
        output.data({**plan, "dry_run": True})
        output.say(f"{count} would be {what}; nothing was changed")
        return True
    if len(names) > 1 and not yes:
        output.data({**plan, "dry_run": True})
        raise PublisherError(f"{count} would be {what}; nothing was changed.", hint="Add --yes to do it.")
    return False


def _report(output: Output, plan: dict[str, Any], made: list[Decision], what: str) -> None:
    """Say what became of each; the first failure decides the exit code."""
    output.data({**plan, "decisions": [decision.to_json() for decision in made]})
    failed = [decision for decision in made if decision.error is not None]
    done = [decision.label for decision in made if decision.error is None]
    if done:
        output.say(f"{what}: {', '.join(done)}", "green")
    for decision in failed:
        output.note(f"{decision.label}: {decision.error.message if decision.error else ''}", "red")
    if failed and failed[0].error is not None:
        first = failed[0].error
        raise type(first)(f"{len(failed):,} of {len(made):,} failed; the first: {first.message}", hint=first.hint)
    if not made:
        output.say("nothing to do")
