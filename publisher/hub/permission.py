"""What the Hub says before anything is sent: who the token belongs to, what it may do, what it thinks of the card.

A token of the old kind has a role; a fine-grained one has permissions per owner or repository, read here so that the
one that lacks is named. Neither is trusted alone: the Hub is asked whether this repository may be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import AccessError, HubError, PublisherError
from publisher.hub.client import LOGIN, HubClient
from publisher.hub.target import Publication, Settings, TransientHubError

Exists = Callable[[], Settings | None]
WRITE = "repo.write"
MAY_NOT = ("read", "no_access")


def problems(hub: HubClient, publication: Publication, *, exists: Exists) -> list[PublisherError]:
    """Everything the Hub says against a push; after the first failure of the network nothing more is asked."""
    found: list[PublisherError] = []
    checks: tuple[Callable[[], None], ...] = (
        lambda: require_write(hub, exists=exists),
        lambda: require_metadata(hub, publication.folder),
    )
    for check in checks:
        try:
            check()
        except PublisherError as problem:
            found.append(problem)
            if isinstance(problem, TransientHubError):
                break
    return found


def whoami(hub: HubClient) -> dict[str, Any]:
    """Who the token belongs to.

    Raises:
        AccessError: nobody.
        HubError: what was answered names nobody.
    """
    found = hub.call("say who the token belongs to", lambda api: dict(api.whoami()))
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise TransientHubError(f"{hub.api.endpoint} did not say who the token belongs to.", hint="Try again.")
    return found


def require_write(hub: HubClient, *, exists: Exists) -> None:
    """Refuse no token, one that may only read, and a login that may neither write to the repository nor create it.

    Raises:
        AccessError: one of these.
        HubError: the Hub cannot be asked.
    """
    if not hub.token:
        raise AccessError("There is no Hub token.", hint=LOGIN)
    who = whoami(hub)
    token = _mapping(_mapping(who.get("auth")).get("accessToken"))
    if token.get("role") == "read":
        raise AccessError(f"The token of {who['name']} may only read.", hint=LOGIN)
    if token.get("role") == "fineGrained" and isinstance(token.get("fineGrained"), dict):
        _require_scope(hub.repo, who["name"], token["fineGrained"])
    if exists() is not None:
        hub.call("check for permission to write", lambda api: api.auth_check(hub.repo, write=True))
        return
    owner = hub.repo.split("/")[0]
    mine = {who["name"]} | {org["name"] for org in _orgs(who) if org.get("roleInOrg") not in MAY_NOT}
    if owner.casefold() not in {name.casefold() for name in mine}:
        raise AccessError(
            f"{who['name']} may not create repositories for {owner}.",
            hint=f"Publish under one of {', '.join(sorted(mine))}, or ask {owner} for a role that may write.",
        )


def _require_scope(repo: str, name: str, scopes: dict[str, Any]) -> None:
    """Refuse a fine-grained token whose permissions do not reach the repository."""
    owner = repo.split("/")[0].casefold()
    held = {str(item) for item in _list(scopes.get("global"))}
    for scope in _list(scopes.get("scoped")):
        entity = str(_mapping(_mapping(scope).get("entity")).get("name")).casefold()
        if entity in (owner, repo.casefold()):
            held |= {str(item) for item in _list(_mapping(scope).get("permissions"))}
    if WRITE not in held:
        raise AccessError(
            f"The fine-grained token of {name} has no write permission for {repo.split('/')[0]} or {repo}.",
            hint="Give it write access to the repositories of that owner at /settings/tokens, or use another token.",
        )


def private_room(hub: HubClient) -> int | None:
    """Bytes that the owner's plan includes for private repositories; None where the plan is not told, or can pay."""
    try:
        who = whoami(hub)
    except (AccessError, HubError):
        return None
    owner = hub.repo.split("/")[0].casefold()
    account = who if who["name"].casefold() == owner else next((o for o in _orgs(who) if _is(o, owner)), None)
    if account is None or account.get("canPay") is not False or account.get("isPro") or account.get("isEnterprise"):
        return None
    return int(jsonio.data("hub/limits.json")["private_free"])


def require_metadata(hub: HubClient, folder: Path) -> None:
    """Refuse a card whose front matter the Hub would not take.

    Raises:
        PublisherError: no card, or metadata that the Hub refuses.
        HubError: the Hub cannot be asked.
    """
    card = folder / "README.md"
    try:
        content = card.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        raise PublisherError(f"{card} is missing or not UTF-8.", hint="Run `publisher card`.") from None
    body = {"content": content, "repoType": "model"}
    status, said = hub.post("check the card's metadata", "/api/validate-yaml", body, expect=(400,))
    if status == 400:
        found = [str(_mapping(error).get("message")) for error in _list(_mapping(said).get("errors"))] or ["no reason"]
        raise PublisherError(
            f"The Hub refuses the metadata of {card}: {hub.clean('; '.join(found))}.",
            hint="Correct the card's front matter, then run the same command again.",
        )


def _orgs(who: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (org for org in _list(who.get("orgs")) if isinstance(org, dict) and isinstance(org.get("name"), str))


def _is(org: dict[str, Any], owner: str) -> bool:
    return bool(org["name"].casefold() == owner)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
