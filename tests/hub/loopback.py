"""A Hub on 127.0.0.1 for tests: enough of the API for the real huggingface_hub client, over plain LFS and Xet.

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

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from tests.hub.accounts import ACCOUNTS
from tests.hub.cas import CAS, spoil
from tests.hub.files import FILES
from tests.hub.refs import REFS
from tests.hub.repositories import Hub, OnDisk, Repo, Stored, User
from tests.hub.wire import Fault, Refused, Reply, Request, Route, Server, handler

__all__ = ["Fault", "LoopbackHub", "OnDisk", "Refused", "Reply", "Repo", "Request", "Stored", "User"]

ROUTES: tuple[Route, ...] = (*REFS, *ACCOUNTS, *FILES, *CAS)


class LoopbackHub(Hub):
    """The server; a context manager. `token` belongs to `user`, who may write to `org` too."""

    def __init__(self, *, token: str = "hf_loopbackWriteToken00", user: str = "ada", org: str = "org") -> None:
        super().__init__(token=token, user=user, org=org)
        self.log: list[Request] = []
        self.faults: list[Callable[[Request], Fault | None]] = []
        self.latency = 0.0  # seconds before every reply
        self.cuts: list[tuple[str, str, int]] = []  # method, pattern, bytes: a body that is cut off there, once each
        self._lock = threading.RLock()
        self._server = Server(("127.0.0.1", 0), handler(self.answer, self._patience))
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

    def shown(self, repo_id: str) -> list[dict[str, str]]:
        """What anybody could see of a repository's main branch: path to object id, every state once, in order."""
        found: list[dict[str, str]] = []
        for item in self.log:
            if item.state.get(repo_id, (True, False))[0]:
                continue
            tree = {path: stored.oid for path, stored in item.trees[repo_id].items()}
            if not found or found[-1] != tree:
                found.append(tree)
        return found

    def _patience(self, method: str, path: str) -> int | None:
        with self._lock:
            for number, (wanted, pattern, size) in enumerate(self.cuts):
                if method == wanted and re.search(pattern, path):
                    del self.cuts[number]
                    return size
        return None

    # --- dispatch --------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Reply | None:
        """The reply, or None for a dropped connection."""
        time.sleep(self.latency)
        with self._lock:
            fault = next((found for hook in self.faults if (found := hook(request)) is not None), None)
            reply = None if fault and fault.drop else self._handled(request, fault)
            reply = fault.shape(reply) if fault and reply else reply
            request.status = reply.status if reply else 0
            request.state = {name: (repo.private, repo.gated) for name, repo in self.repos.items()}
            request.trees = {name: repo.files for name, repo in self.repos.items()}
            self.log.append(request)
            return None if fault and fault.lose_reply else reply

    def _handled(self, request: Request, fault: Fault | None) -> Reply:
        if fault and fault.status is not None:
            return Reply(fault.status, fault.body, {"Content-Type": "application/json"} | fault.headers)
        request = replace(request, range=None) if fault and fault.whole else request
        try:
            if request.token is not None and request.token not in {*self.users, *self.passes}:
                raise Refused(401, "Invalid credentials in Authorization header")
            for method, pattern, route in ROUTES:
                match = re.fullmatch(pattern, request.path)
                if match and request.method in method.split("|"):
                    reply = route(self, request, **{name: unquote(part) for name, part in match.groupdict("").items()})
                    if fault and fault.corrupt:
                        spoil(self, request)
                    return reply
            raise Refused(404, f"no route for {request.method} {request.path}")
        except Refused as refused:
            return refused.reply
