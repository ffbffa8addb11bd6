"""A Hub on 127.0.0.1 for tests: enough of the API for the real huggingface_hub client over plain LFS.

It keeps the Hub's rules that a publisher depends on: private repositories do not exist for strangers, gated files are
refused while their names stay public, `create_repo` of an existing repository answers 409 with its address, commits on
a stale parent 412, card metadata is validated, `.gitattributes` appears by itself. Every request is logged with the
visibility of every repository when it was answered, and a test can make any request fail in the ways networks do: with
a status, cut off, late, with headers that lie, with more than was asked for, or elsewhere.

    with LoopbackHub() as hub:
        hub.seed_repo("upstream/model", {"config.json": b"{}"}, gated="manual")
        HfApi(endpoint=hub.endpoint, token=hub.token).model_info("upstream/model")
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".onnx")
LFS_SIZE = 10 * 1024 * 1024
LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "gemma", "llama3.1", "llama3.3", "openrail", "other"}
RELATIONS = {"adapter", "merge", "quantized", "finetune"}
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
FRONT = re.compile(r"^\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", re.DOTALL)


@dataclass
class User:
    """Who a token belongs to: `role` is read, write or fineGrained; `orgs` maps organisations to roles in them."""

    name: str
    role: str = "write"
    orgs: dict[str, str] = field(default_factory=dict)

    def may_write(self, repo: str) -> bool:
        owner = repo.split("/")[0]
        return self.role != "read" and (owner == self.name or self.orgs.get(owner) in ("admin", "write", "contributor"))

    def belongs(self, repo: str) -> bool:
        return repo.split("/")[0] in {self.name, *self.orgs}


class OnDisk:
    """A file's bytes, read slice by slice: a sparse file of any length takes no memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        begin, end, _ = part.indices(self.size)
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(max(end - begin, 0))


@dataclass
class Stored:
    """A file of a commit; `data` is what downloads give, `oid` and `size` what the listing says."""

    data: bytes | OnDisk
    lfs: bool
    oid: str
    size: int

    @classmethod
    def of(cls, data: bytes, lfs: bool) -> Stored:
        return cls(data, lfs, sha256(data) if lfs else blob_id(data), len(data))

    @classmethod
    def on_disk(cls, path: Path) -> Stored:
        data = OnDisk(path)
        return cls(data, True, sha256(str(path).encode()), len(data))


@dataclass
class Repo:
    """One repository: settings, and a snapshot of the files for every commit."""

    id: str
    private: bool = False
    gated: str | bool = False
    accepted: set[str] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)  # access requests as the API lists them
    hide_names: bool = False
    commits: list[tuple[str, str, dict[str, Stored]]] = field(default_factory=list)

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Stored]:
        return self.commits[-1][2]

    @property
    def open(self) -> bool:
        return not self.private and self.gated is False

    def add(self, title: str, files: dict[str, Stored]) -> str:
        # As in git, other content is another commit: the client's cache goes by it, across tests too.
        content = sorted((path, item.oid) for path, item in files.items())
        sha = hashlib.sha1(f"{self.id} {len(self.commits)} {title} {content}".encode()).hexdigest()
        self.commits.append((sha, title, files))
        return sha

    def ask(self, user: str, *, email: str = "", **form: Any) -> None:
        """Somebody fills in the gate's form, which is done in a browser."""
        who = {"user": user, "fullname": user.title(), "email": email or f"{user}@example.org"}
        made = {"requestId": f"{len(self.asked) + 1:024x}", "user": who, "status": "pending"}
        self.asked.append(made | {"timestamp": "2026-01-01T00:00:00.000Z", "fields": form})

    def at(self, revision: str) -> tuple[str, dict[str, Stored]] | None:
        if revision == "main":
            return self.head, self.files
        return next(((sha, files) for sha, _, files in self.commits if sha == revision), None)


@dataclass
class Request:
    """A logged request; `state` maps repositories to (private, gated) when it had been answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    time: float
    token: str | None = field(repr=False, default=None)
    range: str | None = None
    status: int = 0
    state: dict[str, tuple[bool, str | bool]] = field(default_factory=dict)

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Fault:
    """How a request fails: with a status, dropped before or after it was handled, its stored blob corrupted, or:

    `cut` sends so many bytes of the body and hangs up, `whole` ignores the range asked for, `more` appends so many
    bytes, `endless` never stops sending, `lies` are headers put over the true ones, `trickle` waits so many seconds
    after every byte.
    """

    status: int | None = None
    body: bytes = b'{"error": "injected"}'
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    lose_reply: bool = False
    corrupt: bool = False
    cut: int | None = None
    whole: bool = False
    more: int = 0
    endless: bool = False
    lies: dict[str, str] = field(default_factory=dict)
    trickle: float = 0.0

    def shape(self, reply: Reply) -> Reply:
        """The reply as this fault sends it."""
        reply.headers |= self.lies
        reply.body += bytes(self.more)
        reply.cut, reply.endless, reply.trickle = self.cut, self.endless, self.trickle
        return reply


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    endless: bool = False
    trickle: float = 0.0

    def pieces(self) -> Iterator[bytes]:
        """The body as it is sent."""
        yield self.body if self.cut is None else self.body[: self.cut]
        while self.endless:
            yield bytes(1 << 16)


class Refused(Exception):
    """An error reply."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message, "Content-Type": "application/json"}
        if code:
            headers["X-Error-Code"] = code
        self.reply = Reply(status, json.dumps({"error": message, **body}).encode(), headers)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size >= LFS_SIZE)


class LoopbackHub:
    """The server; a context manager. `token` belongs to `user`, who may write to `org` too."""

    def __init__(self, *, token: str = "hf_loopbackWriteToken00", user: str = "ada", org: str = "org") -> None:
        self.token = token
        self.user = user
        self.users = {token: User(user, orgs={org: "admin"})}
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes | OnDisk] = {}
        self.log: list[Request] = []
        self.faults: list[Callable[[Request], Fault | None]] = []
        self.page_size = 1000
        self.redirect = False  # answer large files with a redirect to another origin, as the Hub does
        self.latency = 0.0  # seconds before every reply
        self.lifetime: float | None = None  # seconds a signed address is good for
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def add_user(self, token: str, name: str, **more: Any) -> str:
        """Let a token in; returns it."""
        self.users[token] = User(name, **more)
        return token

    def seed_repo(
        self, repo_id: str, files: dict[str, bytes], *, private: bool = False, gated: str | bool = False
    ) -> Repo:
        """A repository that exists before the test begins."""
        repo = Repo(repo_id, private=private, gated=gated)
        stored = {path: Stored.of(data, is_lfs(path, len(data))) for path, data in files.items()}
        self.blobs |= {item.oid: item.data for item in stored.values() if item.lfs}
        repo.add("initial commit", {".gitattributes": Stored.of(GITATTRIBUTES, False)} | stored)
        self.repos[repo_id] = repo
        return repo

    def seed_folder(self, repo_id: str, folder: Path) -> Repo:
        """A repository whose files stay on disk, sparse ones of any length among them."""
        stored = {path.name: Stored.on_disk(path) for path in sorted(folder.iterdir())}
        self.blobs |= {item.oid: item.data for item in stored.values()}
        repo = self.repos[repo_id] = Repo(repo_id)
        repo.add("initial commit", stored)
        return repo

    def fail(self, method: str, pattern: str, *, times: int = 1, after: int = 0, **fault: Any) -> Fault:
        """Make requests fail whose path matches: the next `times`, once `after` of them have passed."""
        made = Fault(**fault)
        seen = 0

        def hook(request: Request) -> Fault | None:
            nonlocal seen
            if request.method != method or not re.search(pattern, request.path):
                return None
            seen += 1
            return made if after < seen <= after + times else None

        self.faults.append(hook)
        return made

    def requests(self, method: str, pattern: str) -> list[Request]:
        """Logged requests whose path matches, in order."""
        return [item for item in self.log if item.method == method and re.search(pattern, item.path)]

    def was_open(self, repo_id: str) -> bool:
        """Whether a repository was ever public without a gate when a request had been answered."""
        return any(item.state.get(repo_id) == (False, False) for item in self.log)

    # --- dispatch --------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply | None:
        """The reply, or None for a dropped connection."""
        with self._lock:
            fault = next((found for hook in self.faults if (found := hook(request)) is not None), None)
            reply = None if fault and fault.drop else self._handled(request, fault)
            reply = fault.shape(reply) if fault and reply else reply
            request.status = reply.status if reply else 0
            request.state = {name: (repo.private, repo.gated) for name, repo in self.repos.items()}
            self.log.append(request)
            return None if fault and fault.lose_reply else reply

    def _handled(self, request: Request, fault: Fault | None) -> Reply:
        if fault and fault.status is not None:
            return Reply(fault.status, fault.body, {"Content-Type": "application/json"} | fault.headers)
        request = replace(request, range=None) if fault and fault.whole else request
        try:
            if request.token is not None and request.token not in self.users:
                raise Refused(401, "Invalid credentials in Authorization header")
            for method, pattern, route in ROUTES:
                match = re.fullmatch(pattern, request.path)
                if match and request.method in method.split("|"):
                    reply = route(self, request, **{name: unquote(part) for name, part in match.groupdict("").items()})
                    if fault and fault.corrupt:
                        self._corrupt(request.path.rsplit("/", 1)[1])
                    return reply
            raise Refused(404, f"no route for {request.method} {request.path}")
        except Refused as refused:
            return refused.reply

    def _corrupt(self, oid: str) -> None:
        data = bytearray(self.blobs[oid])
        data[len(data) // 2] ^= 1
        self.blobs[oid] = bytes(data)

    # --- permissions -----------------------------------------------------------------------------------------------

    def _user(self, request: Request) -> User | None:
        return self.users.get(request.token or "")

    def _repo(self, request: Request, repo: str) -> Repo:
        found, user = self.repos.get(repo), self._user(request)
        if found is None or (found.private and not (user and user.belongs(repo))):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def _writable(self, request: Request, repo: str) -> Repo:
        found, user = self._repo(request, repo), self._user(request)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not user.may_write(repo):
            raise Refused(403, f"You don't have the rights to write to {repo}")
        return found

    def _readable(self, request: Request, repo: str) -> Repo:
        found, user = self._repo(request, repo), self._user(request)
        if found.gated is not False and not (user and (user.belongs(repo) or user.name in found.accepted)):
            raise Refused(403 if user else 401, f"Access to model {repo} is restricted.", "GatedRepo")
        return found

    def _revision(self, repo: Repo, revision: str) -> tuple[str, dict[str, Stored]]:
        found = repo.at(revision or "main")
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    # --- accounts and repositories ---------------------------------------------------------------------------------

    def whoami(self, request: Request) -> Reply:
        user = self._user(request)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in user.orgs.items()]
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
        return found_json({"type": "user", "name": user.name, "orgs": orgs, "auth": auth})

    def create(self, request: Request) -> Reply:
        body, user = request.json(), self._user(request)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        repo_id = f"{body.get('organization') or user.name}/{body['name']}"
        if not user.may_write(repo_id):
            raise Refused(403, f"You don't have the rights to create a model under {repo_id.split('/')[0]}")
        url = f"{self.endpoint}/{repo_id}"
        if repo_id in self.repos:
            raise Refused(409, "You already created this model repo", url=url)
        self.seed_repo(repo_id, {}, private=body.get("visibility") == "private" or bool(body.get("private")))
        return found_json({"url": url})

    def put_settings(self, request: Request, repo: str) -> Reply:
        found, body = self._writable(request, repo), request.json()
        if "gated" in body:
            found.gated = body["gated"]
        if "visibility" in body or "private" in body:
            found.private = body.get("visibility") == "private" or bool(body.get("private"))
        return found_json({"private": found.private, "gated": found.gated})

    def auth_check(self, request: Request, repo: str, write: str) -> Reply:
        self._writable(request, repo) if write else self._readable(request, repo)
        return Reply()

    def access_list(self, request: Request, repo: str, state: str) -> Reply:
        found = self._gated(request, repo)
        listed = [item for item in found.asked if item["status"] == state]
        if found.hide_names:
            listed = [{key: value for key, value in item.items() if key != "user"} for item in listed]
        return self._page(request, listed)

    def access_handle(self, request: Request, repo: str) -> Reply:
        found, body = self._gated(request, repo), request.json()
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

    def access_grant(self, request: Request, repo: str) -> Reply:
        found, user = self._gated(request, repo), request.json()["user"]
        if user not in {known.name for known in self.users.values()}:
            raise Refused(404, "User not found")
        if user in found.accepted:
            raise Refused(400, "User already has access")
        found.accepted.add(user)
        found.ask(user)
        found.asked[-1] |= {"status": "accepted"}
        return found_json({"success": True})

    def _gated(self, request: Request, repo: str) -> Repo:
        found = self._writable(request, repo)
        if found.gated is False:
            raise Refused(400, "This repo is not gated")
        return found

    def info(self, request: Request, repo: str, rev: str = "") -> Reply:
        found = self._repo(request, repo)
        sha, files = self._revision(found, rev)
        siblings = [{"rfilename": path} | self._blob(item) for path, item in sorted(files.items())]
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

    def validate_yaml(self, request: Request) -> Reply:
        card = front_matter(request.json()["content"])
        if card is None or card == {}:
            return found_json({"warnings": [{"message": "empty or missing yaml metadata in repo card"}], "errors": []})
        errors = list(card_errors(card))
        body = {"errors": [{"message": text} for text in errors], "warnings": []}
        return Reply(400 if errors else 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def refs(self, request: Request, repo: str) -> Reply:
        head = self._repo(request, repo).head
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": head}
        return found_json({"branches": [branch], "tags": [], "converts": []})

    def commits(self, request: Request, repo: str, rev: str) -> Reply:
        found = self._repo(request, repo)
        self._revision(found, rev)
        listed = [
            {"id": sha, "title": title, "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}
            for sha, title, _ in reversed(found.commits)
        ]
        return found_json(listed)

    # --- listing and reading ---------------------------------------------------------------------------------------

    def _blob(self, item: Stored) -> dict[str, Any]:
        lfs = {"oid": item.oid, "sha256": item.oid, "size": item.size, "pointerSize": 135} if item.lfs else None
        oid = blob_id(f"oid sha256:{item.oid}".encode()) if item.lfs else item.oid
        return {"size": item.size, "blobId": oid} | ({"lfs": lfs} if lfs else {})

    def _entry(self, path: str, item: Stored) -> dict[str, Any]:
        blob = self._blob(item)
        return {"type": "file", "path": path, "size": item.size, "oid": blob["blobId"]} | (
            {"lfs": blob["lfs"]} if item.lfs else {}
        )

    def tree(self, request: Request, repo: str, rev: str, path: str = "") -> Reply:
        found = self._repo(request, repo)
        _, files = self._revision(found, rev)
        recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{path.strip('/')}/" if path else ""
        entries: dict[str, dict[str, Any]] = {}
        for name, item in sorted(files.items()):
            if not name.startswith(prefix):
                continue
            parts = name[len(prefix) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                folder = prefix + "/".join(parts[:depth])
                entries.setdefault(
                    folder, {"type": "directory", "path": folder, "size": 0, "oid": blob_id(folder.encode())}
                )
            if recursive or len(parts) == 1:
                entries[name] = self._entry(name, item)
        if path and not entries:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        return self._page(request, list(entries.values()))

    def _page(self, request: Request, entries: list[dict[str, Any]]) -> Reply:
        start = int(request.query.get("cursor", ["0"])[0])
        reply = found_json(entries[start : start + self.page_size])
        if start + self.page_size < len(entries):
            query = {name: values[0] for name, values in request.query.items()} | {"cursor": start + self.page_size}
            address = f"{self.endpoint}{request.path}?" + "&".join(f"{k}={quote(str(v))}" for k, v in query.items())
            reply.headers["Link"] = f'<{address}>; rel="next"'
        return reply

    def paths_info(self, request: Request, repo: str, rev: str) -> Reply:
        _, files = self._revision(self._repo(request, repo), rev)
        wanted = parse_qs(request.body.decode()).get("paths", [])
        return found_json([self._entry(path, files[path]) for path in wanted if path in files])

    def resolve(self, request: Request, repo: str, rev: str, path: str) -> Reply:
        sha, files = self._revision(self._readable(request, repo), rev)
        if path not in files:
            refused = Refused(404, f"{path} does not exist", "EntryNotFound")
            refused.reply.headers["X-Repo-Commit"] = sha
            raise refused
        item = files[path]
        data = self.blobs[item.oid] if item.lfs else item.data
        headers = {
            "ETag": f'"{item.oid}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if item.lfs:
            headers |= {"X-Linked-Etag": f'"{item.oid}"', "X-Linked-Size": str(item.size)}
            if self.redirect:
                port = self._server.server_address[1]
                until = "" if self.lifetime is None else f"&until={time.time() + self.lifetime}"
                signed = f"http://localhost:{port}/_lfs/{item.oid}?sig=secret{until}"
                return Reply(302, b"", headers | {"Location": signed})
        return ranged(request, data, headers)

    # --- writing ---------------------------------------------------------------------------------------------------

    def preupload(self, request: Request, repo: str, rev: str) -> Reply:
        _, files = self._revision(self._writable(request, repo), rev)
        answer = []
        for item in request.json()["files"]:
            mode = "lfs" if is_lfs(item["path"], item["size"]) else "regular"
            there = files.get(item["path"])
            entry = {"path": item["path"], "uploadMode": mode, "shouldIgnore": False}
            answer.append(entry | ({"oid": there.oid} if there else {}))
        return found_json({"files": answer})

    def lfs_batch(self, request: Request, repo: str) -> Reply:
        self._writable(request, repo)
        objects = []
        for item in request.json()["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.blobs:
                upload = {"href": f"{self.endpoint}/_lfs/{item['oid']}?X-Amz-Signature=secret"}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{self.endpoint}/_lfs/verify/{repo}"}}
            objects.append(entry)
        return found_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, request: Request, oid: str) -> Reply:
        if sha256(request.body) != oid:
            raise Refused(400, "checksum mismatch")
        self.blobs[oid] = request.body
        return Reply(headers={"ETag": f'"{oid}"'})

    def lfs_get(self, request: Request, oid: str) -> Reply:
        if request.token is not None:
            raise Refused(400, "a token was sent to another origin")
        if float(request.query.get("until", ["inf"])[0]) < time.time():
            raise Refused(403, "Request has expired")
        return ranged(request, self.blobs[oid], {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"})

    def lfs_verify(self, request: Request, repo: str) -> Reply:
        self._writable(request, repo)
        if request.json()["oid"] not in self.blobs:
            raise Refused(404, "object does not exist")
        return found_json({"message": "OK"})

    def commit(self, request: Request, repo: str, rev: str) -> Reply:
        found = self._writable(request, repo)
        _, files = self._revision(found, rev)
        files, lines = dict(files), request.lines()
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, found.head):
            raise Refused(412, "The branch was updated since you opened this page. Please refresh and try again.")
        for line in lines[1:]:
            self._apply(files, line["key"], line["value"])
        sha = found.add(header["summary"], files)
        return found_json({"success": True, "commitOid": sha, "commitUrl": f"{self.endpoint}/{repo}/commit/{sha}"})

    def _apply(self, files: dict[str, Stored], key: str, value: dict[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = Stored.of(base64.b64decode(value["content"]), False)
        elif key == "lfsFile":
            if value["oid"] not in self.blobs:
                raise Refused(400, f"LFS object {value['oid']} was not uploaded")
            files[path] = Stored(b"", True, value["oid"], value["size"])
        elif key in ("deletedFile", "deletedFolder"):
            gone = [name for name in files if name == path or name.startswith(path.rstrip("/") + "/")]
            if not gone:
                raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise Refused(400, f"unknown operation {key}")


ID = r"(?P<repo>[^/]+/[^/]+)"
REV = r"(?P<rev>[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Reply]]] = [
    ("GET", r"/api/whoami-v2", LoopbackHub.whoami),
    ("POST", r"/api/repos/create", LoopbackHub.create),
    ("POST", r"/api/validate-yaml", LoopbackHub.validate_yaml),
    ("PUT", rf"/api/models/{ID}/settings", LoopbackHub.put_settings),
    ("GET", rf"/api/models/{ID}/user-access-request/(?P<state>pending|accepted|rejected)", LoopbackHub.access_list),
    ("POST", rf"/api/models/{ID}/user-access-request/handle", LoopbackHub.access_handle),
    ("POST", rf"/api/models/{ID}/user-access-request/grant", LoopbackHub.access_grant),
    ("GET", rf"/api/models/{ID}/auth-check(?P<write>/write)?", LoopbackHub.auth_check),
    ("GET", rf"/api/models/{ID}/refs", LoopbackHub.refs),
    ("GET", rf"/api/models/{ID}/commits/{REV}", LoopbackHub.commits),
    ("GET", rf"/api/models/{ID}/tree/{REV}(?:/(?P<path>.+))?", LoopbackHub.tree),
    ("POST", rf"/api/models/{ID}/paths-info/{REV}", LoopbackHub.paths_info),
    ("POST", rf"/api/models/{ID}/preupload/{REV}", LoopbackHub.preupload),
    ("POST", rf"/api/models/{ID}/commit/{REV}", LoopbackHub.commit),
    ("GET", rf"/api/models/{ID}(?:/revision/{REV})?", LoopbackHub.info),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", LoopbackHub.lfs_batch),
    ("POST", rf"/_lfs/verify/{ID}", LoopbackHub.lfs_verify),
    ("GET|HEAD", r"/_lfs/(?P<oid>[0-9a-f]{64})", LoopbackHub.lfs_get),
    ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})", LoopbackHub.lfs_put),
    ("GET|HEAD", rf"/{ID}/resolve/{REV}/(?P<path>.+)", LoopbackHub.resolve),
]


def found_json(value: Any) -> Reply:
    return Reply(body=json.dumps(value).encode(), headers={"Content-Type": "application/json"})


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


def ranged(request: Request, data: bytes | OnDisk, headers: dict[str, str]) -> Reply:
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.range or "")
    if not match or match.group(0) == "bytes=-":
        return Reply(200, data[:], headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last), len(data) - 1) if first and last else len(data) - 1
    if start >= len(data):
        return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"})


class _Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is what some tests are about."""


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 64 * 1024  # one packet for head and body; two would wait for each other
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            url = urlsplit(self.path)
            scheme, _, token = self.headers.get("Authorization", "").partition(" ")
            request = Request(
                method=self.command,
                path=url.path,
                query=parse_qs(url.query),
                body=self._body(),
                time=time.time(),
                token=token if scheme.lower() == "bearer" else None,
                range=self.headers.get("Range"),
            )
            time.sleep(hub.latency)
            reply = hub.answer(request)
            if reply is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.endless:
                self.close_connection = True
            elif "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            if self.command != "HEAD":
                self._send(reply)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

        def _send(self, reply: Reply) -> None:
            for piece in reply.pieces():
                for part in [piece[n : n + 1] for n in range(len(piece))] if reply.trickle else [piece]:
                    self.wfile.write(part)
                    if reply.trickle:
                        self.wfile.flush()
                        time.sleep(reply.trickle)
            if reply.cut is not None:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
            """Keep quiet; the hub has its own log."""

    return Handler
