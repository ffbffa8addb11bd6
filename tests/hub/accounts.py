"""Routes of accounts and repositories: who somebody is, creating, settings, the gate's requests, card metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.hub.files import blob, page
from tests.hub.repositories import Hub, Repo
from tests.hub.wire import ID, REV, Refused, Reply, Request, Route, found_json

LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "gemma", "llama3.1", "llama3.3", "openrail", "other"}
RELATIONS = {"adapter", "merge", "quantized", "finetune"}
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
FRONT = re.compile(r"^\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", re.DOTALL)


def whoami(hub: Hub, request: Request) -> Reply:
    user = hub.account(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in user.orgs.items()]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
    return found_json({"type": "user", "name": user.name, "orgs": orgs, "auth": auth})


def create(hub: Hub, request: Request) -> Reply:
    body, user = request.json(), hub.account(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    repo_id = f"{body.get('organization') or user.name}/{body['name']}"
    if not user.may_write(repo_id):
        raise Refused(403, f"You don't have the rights to create a model under {repo_id.split('/')[0]}")
    url = f"{hub.endpoint}/{repo_id}"
    if repo_id in hub.repos:
        raise Refused(409, "You already created this model repo", url=url)
    hub.seed_repo(repo_id, {}, private=body.get("visibility") == "private" or bool(body.get("private")))
    return found_json({"url": url})


def put_settings(hub: Hub, request: Request, repo: str) -> Reply:
    found, body = hub.writable(request, repo), request.json()
    if "gated" in body:
        found.gated = body["gated"]
    if "visibility" in body or "private" in body:
        found.private = body.get("visibility") == "private" or bool(body.get("private"))
    return found_json({"private": found.private, "gated": found.gated})


def auth_check(hub: Hub, request: Request, repo: str, write: str) -> Reply:
    hub.writable(request, repo) if write else hub.readable(request, repo)
    return Reply()


def access_list(hub: Hub, request: Request, repo: str, state: str) -> Reply:
    found = gated(hub, request, repo)
    listed = [item for item in found.asked if item["status"] == state]
    if found.hide_names:
        listed = [{key: value for key, value in item.items() if key != "user"} for item in listed]
    return page(hub, request, listed)


def access_handle(hub: Hub, request: Request, repo: str) -> Reply:
    found, body = gated(hub, request, repo), request.json()
    named = [
        item
        for item in found.asked
        if body.get("user") == item["user"]["user"] or body.get("requestId") == item["requestId"]
    ]
    if not named or named[0]["status"] == body["status"]:
        raise Refused(404, "No access request found")
    named[0]["status"] = body["status"]
    named[0]["reason"] = body.get("rejectionReason")
    change = found.accepted.add if body["status"] == "accepted" else found.accepted.discard
    change(named[0]["user"]["user"])
    return Reply()


def access_grant(hub: Hub, request: Request, repo: str) -> Reply:
    found, user = gated(hub, request, repo), request.json()["user"]
    if user not in {known.name for known in hub.users.values()}:
        raise Refused(404, "User not found")
    if user in found.accepted:
        raise Refused(400, "User already has access")
    found.accepted.add(user)
    found.ask(user)
    found.asked[-1] |= {"status": "accepted"}
    return found_json({"success": True})


def gated(hub: Hub, request: Request, repo: str) -> Repo:
    found = hub.writable(request, repo)
    if found.gated is False:
        raise Refused(400, "This repo is not gated")
    return found


def info(hub: Hub, request: Request, repo: str, rev: str = "") -> Reply:
    found = hub.repo(request, repo)
    sha, files = hub.revision(found, rev)
    siblings = [{"rfilename": path} | blob(item) for path, item in sorted(files.items())]
    if "blobs" not in request.query:
        siblings = [{"rfilename": item["rfilename"]} for item in siblings]
    card = front_matter(files["README.md"].data.decode(errors="replace")) if "README.md" in files else None
    return found_json(
        {
            "_id": "0" * 24,
            "id": repo,
            "modelId": repo,
            "author": repo.split("/")[0],
            "sha": sha,
            "private": found.private,
            "gated": found.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
            "cardData": card if isinstance(card, dict) else {},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-01-01T00:00:00.000Z",
        }
    )


def validate_yaml(hub: Hub, request: Request) -> Reply:
    card = front_matter(request.json()["content"])
    if card is None or card == {}:
        return found_json({"warnings": [{"message": "empty or missing yaml metadata in repo card"}], "errors": []})
    errors = list(card_errors(card))
    body = {"errors": [{"message": text} for text in errors], "warnings": []}
    return Reply(400 if errors else 200, json.dumps(body).encode(), {"Content-Type": "application/json"})


def front_matter(text: str) -> Any:
    match = FRONT.match(text)
    try:
        return yaml.safe_load(match.group(1)) if match else None
    except yaml.YAMLError as error:
        return {"": str(error)}


def card_errors(card: Any) -> Iterator[str]:
    if not isinstance(card, dict) or "" in card:
        yield "Invalid YAML"
        return
    licence = card.get("license")
    if licence is not None and licence not in LICENCES:
        yield f'"license" must be one of {sorted(LICENCES)}'
    models = card.get("base_model", [])
    for model in models if isinstance(models, list) else [models]:
        if not REPO_ID.fullmatch(str(model)):
            yield f'"base_model" with value "{model}" is not valid. Use a model id from https://hf.co/models.'
    if card.get("base_model_relation", "quantized") not in RELATIONS:
        yield f'"base_model_relation" must be one of {sorted(RELATIONS)}'


ACCOUNTS: tuple[Route, ...] = (
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/repos/create", create),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("PUT", rf"/api/models/{ID}/settings", put_settings),
    ("GET", rf"/api/models/{ID}/user-access-request/(?P<state>pending|accepted|rejected)", access_list),
    ("POST", rf"/api/models/{ID}/user-access-request/handle", access_handle),
    ("POST", rf"/api/models/{ID}/user-access-request/grant", access_grant),
    ("GET", rf"/api/models/{ID}/auth-check(?P<write>/write)?", auth_check),
    ("GET", rf"/api/models/{ID}(?:/revision/{REV})?", info),
)
