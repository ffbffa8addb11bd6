"""Routes of a repository's revisions: branches, tags, commits, pull requests with their merge; and the private quota.

As on the Hub, a pull request is a discussion with a ref of its own that starts where main is; it begins as a draft,
must be opened before it is merged, and one whose files changed on main meanwhile conflicts.
"""

from __future__ import annotations

from typing import Any

from tests.hub.repositories import Hub, Pull, Repo, Stored
from tests.hub.wire import ID, REV, Refused, Reply, Request, Route, found_json

DATE = "2026-01-01T00:00:00.000Z"


def refs(hub: Hub, request: Request, repo: str) -> Reply:
    found = hub.repo(request, repo)
    named = [("main", found.head)] + [(n, line[-1][0]) for n, line in found.sides.items() if not n.startswith("refs/")]
    answer: dict[str, Any] = {
        "branches": [ref(name, f"refs/heads/{name}", sha) for name, sha in named],
        "tags": [ref(name, f"refs/tags/{name}", sha) for name, sha in found.tags.items()],
        "converts": [],
    }
    if request.query.get("include_prs"):
        pulls = [name for name in found.sides if name.startswith("refs/pr/")]
        answer["pullRequests"] = [ref(name.rpartition("/")[2], name, found.sides[name][-1][0]) for name in pulls]
    return found_json(answer)


def ref(name: str, full: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": full, "targetCommit": sha}


def commits(hub: Hub, request: Request, repo: str, rev: str) -> Reply:
    found = hub.repo(request, repo)
    hub.revision(found, rev)
    listed = []
    for sha, title, _ in reversed(found.line(rev)):
        message, author = found.notes.get(sha, ("", ""))
        authors = [{"user": author}] if author else []
        listed.append({"id": sha, "title": title, "message": message, "date": DATE, "authors": authors})
    return found_json(listed)


def create_branch(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    found = hub.writable(request, repo)
    if name == "main" or name in found.sides:
        raise Refused(409, "Reference already exists")
    found.sides[name] = list(found.line(request.json().get("startingPoint") or "main"))
    return Reply()


def delete_branch(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    found = hub.writable(request, repo)
    if found.sides.pop(name, None) is None:
        raise Refused(404, "Reference does not exist", "RevisionNotFound")
    return Reply()


def create_tag(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    found, tag = hub.writable(request, repo), request.json()["tag"]
    sha, _ = hub.revision(found, name)
    if tag in found.tags:
        raise Refused(409, "Tag reference exists already")
    found.tags[tag] = sha
    return Reply()


def delete_tag(hub: Hub, request: Request, repo: str, name: str) -> Reply:
    found = hub.writable(request, repo)
    if found.tags.pop(name, None) is None:
        raise Refused(404, "Tag does not exist", "RevisionNotFound")
    return Reply()


# --- pull requests ---------------------------------------------------------------------------------------------------


def list_discussions(hub: Hub, request: Request, repo: str) -> Reply:
    found = hub.repo(request, repo)
    author = request.query.get("author", [None])[0]
    status = request.query.get("status", ["all"])[0]
    chosen = [
        pull
        for pull in reversed(found.pulls)
        if author in (None, pull.author) and (status == "all" or (status == "closed") == (pull.status == "closed"))
    ]
    page, size = int(request.query.get("p", ["0"])[0]), 10
    shown = [summary(repo, pull) for pull in chosen[page * size : (page + 1) * size]]
    return found_json({"discussions": shown, "count": len(chosen), "start": page * size})


def create_discussion(hub: Hub, request: Request, repo: str) -> Reply:
    found, body, user = hub.writable(request, repo), request.json(), hub.account(request)
    number = len(found.pulls) + 1
    pull = Pull(number, body["title"], body["description"], user.name if user else "", found.head)
    found.pulls.append(pull)
    found.sides[pull.ref] = list(found.commits)
    return found_json({"num": number})


def show_discussion(hub: Hub, request: Request, repo: str, number: str) -> Reply:
    found = hub.repo(request, repo)
    pull = pulled(found, number)
    return found_json(
        summary(repo, pull)
        | {
            "changes": {"base": "main"} | ({"mergeCommitId": pull.merged} if pull.merged else {}),
            "filesWithConflicts": conflicts(found, pull) if pull.status in ("open", "draft") else [],
            "events": [comment(pull.author, pull.description)],
            "diff": "",
        }
    )


def change_status(hub: Hub, request: Request, repo: str, number: str) -> Reply:
    pull, body = pulled(hub.writable(request, repo), number), request.json()
    pull.status = body["status"]
    data = {"status": body["status"]}
    return found_json({"newStatus": comment(pull.author, "") | {"type": "status-change", "data": data}})


def merge(hub: Hub, request: Request, repo: str, number: str) -> Reply:
    found, user = hub.writable(request, repo), hub.account(request)
    pull = pulled(found, number)
    if pull.status != "open":
        raise Refused(400, f"This pull request is {pull.status}")
    if conflicts(found, pull):
        raise Refused(409, "This branch has conflicts that must be resolved")
    mine, base = found.sides[pull.ref][-1][2], files_at(found, pull.base)
    merged = dict(found.files)
    for path in changed(base, mine):
        if path in mine:
            merged[path] = mine[path]
        else:
            merged.pop(path, None)
    author = user.name if user else ""
    pull.merged = found.add(f"{pull.title} (#{pull.number})", merged, message=pull.description, author=author)
    pull.status = "merged"
    return Reply()


def pulled(repo: Repo, number: str) -> Pull:
    found = next((pull for pull in repo.pulls if pull.number == int(number)), None)
    if found is None:
        raise Refused(404, "Discussion not found", "EntryNotFound")
    return found


def files_at(repo: Repo, sha: str) -> dict[str, Stored]:
    found = repo.at(sha)
    return found[1] if found else {}


def changed(before: dict[str, Stored], after: dict[str, Stored]) -> set[str]:
    oids = [{path: item.oid for path, item in files.items()} for files in (before, after)]
    return {path for path in {**oids[0], **oids[1]} if oids[0].get(path) != oids[1].get(path)}


def conflicts(repo: Repo, pull: Pull) -> list[str]:
    """What both changed since they parted, and not to the same."""
    base, mine = files_at(repo, pull.base), repo.sides[pull.ref][-1][2]
    return sorted(changed(base, repo.files) & changed(base, mine) & changed(repo.files, mine))


def summary(repo: str, pull: Pull) -> dict[str, Any]:
    return {
        "title": pull.title,
        "num": pull.number,
        "author": {"name": pull.author},
        "createdAt": DATE,
        "status": pull.status,
        "repo": {"name": repo, "type": "model"},
        "isPullRequest": True,
    }


def comment(author: str, text: str) -> dict[str, Any]:
    latest = {"edited": False, "hidden": False, "latest": {"raw": text}}
    return {"id": "0" * 24, "type": "comment", "createdAt": DATE, "author": {"name": author}, "data": latest}


NAME = r"(?P<name>[^/]+)"
NUMBER = r"(?P<number>\d+)"
REFS: tuple[Route, ...] = (
    ("GET", rf"/api/models/{ID}/refs", refs),
    ("GET", rf"/api/models/{ID}/commits/{REV}", commits),
    ("POST", rf"/api/models/{ID}/branch/{NAME}", create_branch),
    ("DELETE", rf"/api/models/{ID}/branch/{NAME}", delete_branch),
    ("POST", rf"/api/models/{ID}/tag/{NAME}", create_tag),
    ("DELETE", rf"/api/models/{ID}/tag/{NAME}", delete_tag),
    ("GET", rf"/api/models/{ID}/discussions", list_discussions),
    ("POST", rf"/api/models/{ID}/discussions", create_discussion),
    ("GET", rf"/api/models/{ID}/discussions/{NUMBER}", show_discussion),
    ("POST", rf"/api/models/{ID}/discussions/{NUMBER}/status", change_status),
    ("POST", rf"/api/models/{ID}/discussions/{NUMBER}/merge", merge),
)
