"""What the loopback Hub keeps: accounts, repositories with every commit, contents, and who may see or change what."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hub.wire import Content, Refused, Request
from tests.hub.xorbs import Reconstructed, Store

GITATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".onnx")
LFS_SIZE = 10 * 1024 * 1024


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

    data: Any  # bytes, or OnDisk
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
class Pull:
    """A pull request; its ref starts at `base`."""

    number: int
    title: str
    description: str
    author: str
    base: str
    status: str = "draft"
    merged: str = ""

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.number}"


@dataclass
class Repo:
    """One repository: settings, and a snapshot of the files for every commit, of main and of other refs."""

    id: str
    private: bool = False
    gated: str | bool = False
    accepted: set[str] = field(default_factory=set)
    asked: list[dict[str, Any]] = field(default_factory=list)  # access requests as the API lists them
    hide_names: bool = False
    commits: list[tuple[str, str, dict[str, Stored]]] = field(default_factory=list)
    sides: dict[str, list[tuple[str, str, dict[str, Stored]]]] = field(
        default_factory=dict
    )  # other branches, refs/pr/N
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[Pull] = field(default_factory=list)
    notes: dict[str, tuple[str, str]] = field(default_factory=dict)  # description and author of commits

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, Stored]:
        return self.commits[-1][2]

    @property
    def open(self) -> bool:
        return not self.private and self.gated is False

    def add(
        self, title: str, files: dict[str, Stored], revision: str = "main", *, message: str = "", author: str = ""
    ) -> str:
        # As in git, other content is another commit: the client's cache goes by it, across tests too.
        content = sorted((path, item.oid) for path, item in files.items())
        line = self.commits if revision == "main" else self.sides[revision]
        sha = hashlib.sha1(f"{self.id} {revision} {len(line)} {title} {content}".encode()).hexdigest()
        line.append((sha, title, files))
        self.notes[sha] = (message, author)
        return sha

    def line(self, revision: str) -> list[tuple[str, str, dict[str, Stored]]]:
        """A ref's commits, oldest first; of a commit, those up to it."""
        if revision == "main" or revision in self.sides:
            return self.commits if revision == "main" else self.sides[revision]
        wanted = self.tags.get(revision, revision)
        for line in (self.commits, *self.sides.values()):
            for number, (sha, _, _) in enumerate(line):
                if sha == wanted:
                    return line[: number + 1]
        return []

    def ask(self, user: str, *, email: str = "", **form: Any) -> None:
        """Somebody fills in the gate's form, which is done in a browser."""
        who = {"user": user, "fullname": user.title(), "email": email or f"{user}@example.org"}
        made = {"requestId": f"{len(self.asked) + 1:024x}", "user": who, "status": "pending"}
        self.asked.append(made | {"timestamp": "2026-01-01T00:00:00.000Z", "fields": form})

    def at(self, revision: str) -> tuple[str, dict[str, Stored]] | None:
        line = self.line(revision)
        return (line[-1][0], line[-1][2]) if line else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size >= LFS_SIZE)


class Hub:
    """The Hub's state, which routes read and change. `token` belongs to `user`, who may write to `org` too."""

    def __init__(self, *, token: str, user: str, org: str) -> None:
        self.token = token
        self.user = user
        self.users = {token: User(user, orgs={org: "admin"})}
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, Content] = {}  # by sha256
        self.store = Store()  # what came over Xet
        self.passes: dict[str, Any] = {}  # by Xet token
        self.xet_version = 2  # 1: shards and reconstructions as older stores answer them
        self.xet_lifetime = 3600.0  # seconds a Xet token is good for
        self.page_size = 1000
        self.redirect = False  # answer large files with a redirect to another origin, as the Hub does
        self.lifetime: float | None = None  # seconds a signed address is good for
        self.private_quota: int | None = None  # bytes of large files that an owner's private repositories may hold

    @property
    def endpoint(self) -> str:
        """The address clients are given."""
        raise NotImplementedError

    def signed(self, path: str) -> str:
        """An address at another origin that needs no token, good for `lifetime` seconds."""
        until = "" if self.lifetime is None else f"&until={time.time() + self.lifetime}"
        return f"{self.endpoint.replace('127.0.0.1', 'localhost')}{path}?sig=secret{until}"

    def require_signature(self, request: Request) -> None:
        """Refuse an address that has expired."""
        if float(request.query.get("until", ["inf"])[0]) < time.time():
            raise Refused(403, "Request has expired")

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

    def corrupt(self, oid: str) -> None:
        """One bit of a stored content turns over."""
        content = self.blobs[oid]
        if isinstance(content, Reconstructed):
            content.corrupt()
            return
        data = bytearray(content[:])
        data[len(data) // 2] ^= 1
        self.blobs[oid] = bytes(data)

    def account(self, request: Request) -> User | None:
        return self.users.get(request.token or "")

    def repo(self, request: Request, repo: str) -> Repo:
        found, user = self.repos.get(repo), self.account(request)
        if found is None or (found.private and not (user and user.belongs(repo))):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def writable(self, request: Request, repo: str) -> Repo:
        found, user = self.repo(request, repo), self.account(request)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not user.may_write(repo):
            raise Refused(403, f"You don't have the rights to write to {repo}")
        return found

    def readable(self, request: Request, repo: str) -> Repo:
        found, user = self.repo(request, repo), self.account(request)
        if found.gated is not False and not (user and (user.belongs(repo) or user.name in found.accepted)):
            raise Refused(403 if user else 401, f"Access to model {repo} is restricted.", "GatedRepo")
        return found

    def require_room(self, repo: Repo, more: int) -> None:
        """Refuse what is more than the owner's private repositories may hold."""
        owner = repo.id.split("/")[0]
        kept = {
            item.oid: item.size
            for found in self.repos.values()
            if found.private and found.id.split("/")[0] == owner
            for _, _, files in found.commits
            for item in files.values()
            if item.lfs
        }
        if repo.private and self.private_quota is not None and sum(kept.values()) + more > self.private_quota:
            raise Refused(403, "Private repository storage limit reached, please upgrade your plan")

    def revision(self, repo: Repo, revision: str) -> tuple[str, dict[str, Stored]]:
        found = repo.at(revision or "main")
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found
