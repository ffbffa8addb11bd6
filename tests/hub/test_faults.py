"""Every fault of the table, run with the real client: what the user sees is true, nobody ever saw a part, and the next
run completes without sending twice what had arrived.

A push is looked at as a process: how it ended, what it said, what is stored and what the Hub's log shows. Waits are
counted, never waited; pushes that are killed run in processes of their own.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.utils._http as client
import huggingface_hub.utils._xet as xet_client
import pytest
from huggingface_hub import file_download

from publisher.errors import PublisherError
from publisher.hub.push import push
from publisher.hub.target import Publication
from tests.hub.conftest import XET_SETTINGS, hub_place
from tests.hub.faults import ROWS, STEPS, XET, Row, Step
from tests.hub.loopback import Stored
from tests.hub.places import FILES, REPO, FolderPlace, HubPlace, publication
from tests.hub.wire import Fault, Request
from tests.hub.zygote import Zygote

OLD = FILES | {
    "config.json": b'{"old": 1}\n',
    "notes.txt": b"of the old version\n",
    "model-00001-of-00002.safetensors": b"older shard " * 500,
}
OTHER = FILES | {"config.json": b'{"other": 1}\n', "model-00002-of-00002.safetensors": b"other shard " * 500}
THEIRS = b"of somebody else"
LOADABLE = {name for name in FILES if name.endswith((".safetensors", ".json"))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, as the command line would say it."""

    code: int
    message: str = ""
    hint: str = ""


@dataclass
class Scene:
    """A repository as a push finds it, over one transport."""

    place: HubPlace | FolderPlace
    transport: str
    start: str
    folder: Path
    zygote: Zygote
    warned: list[str] = field(default_factory=list)
    at: dict[str, Callable[[], Any]] = field(default_factory=dict)  # what somebody else does when a phase begins
    in_child: dict[str, Any] | None = None  # run the push in a process of its own, with this
    killed: Callable[[int], None] = lambda pid: None  # told the process's id
    replaced: list[Request] = field(default_factory=list)  # which the Hub never did

    def __post_init__(self) -> None:
        self.new = publication(self.folder / "new")
        self.old = publication(self.folder / "old", OLD, private=self.start == "private")
        self.other = publication(self.folder / "other", OTHER)

    @property
    def hub(self) -> Any:
        assert isinstance(self.place, HubPlace)
        return self.place.hub

    def run(self, wanted: Publication | None = None) -> Outcome:
        """A push as a process of its own: the client remembers nothing but what lies in its cache on the disk."""
        if self.in_child is not None:
            ended = self._forked(self.in_child)
            return Outcome(code=ended["code"], message=ended["message"], hint=ended["hint"])
        xet_client._GLOBAL_XET_HOLDER = xet_client.XetSessionHolder()
        xet_client.XET_CONNECTION_INFO_CACHE.clear()
        waits = self.place.waits if isinstance(self.place, HubPlace) else []
        try:
            push(self.place.target(), wanted or self.new, emit=self._hear, sleep=waits.append)
        except PublisherError as error:
            return Outcome(code=error.exit_code, message=error.message, hint=error.hint)
        return Outcome(code=0)

    def _hear(self, kind: str, payload: Any) -> None:
        if kind in ("warning", "log"):
            self.warned.append(payload["message"])
        act = self.at.pop(payload["step"], None) if kind == "start" else None
        if act is not None:
            act()

    def _forked(self, more: dict[str, Any]) -> dict[str, Any]:
        settings = XET_SETTINGS | {"HF_XET_CACHE": str(self.folder / "xet-cache"), "TMPDIR": str(self.folder)}
        hub = isinstance(self.place, HubPlace)
        job = {
            "transport": self.transport,
            "environment": settings,
            "folder": str(self.new.folder),
            "place": self.hub.endpoint if hub else str(self.folder / "published"),
            "repo": REPO,
            "token": self.hub.token if hub else "",
        }
        return self.zygote.run(job | more, self.killed)

    def over(self) -> None:
        """The fault is over."""
        self.at.clear()
        self.in_child = None
        if isinstance(self.place, HubPlace):
            self.hub.faults.clear()
            self.hub.cuts.clear()
            self.hub.private_quota = None
            self.hub.add_user(self.hub.token, self.hub.user, orgs={"org": "admin"})

    def changes(self) -> int:
        """How much was ever changed, by anybody."""
        if isinstance(self.place, FolderPlace):
            return self.place.writes()
        wanted = [STEPS[name].request(self.transport) for name, step in STEPS.items() if step.writes]
        return sum(len(self.hub.requests(*request)) for request in wanted)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    transport, start = request.param
    found: Iterator[Any] = iter([FolderPlace(tmp_path / "published")])
    for place in found if transport == "folder" else hub_place(request, transport):
        made = Scene(place, transport, start, tmp_path, zygote)
        if isinstance(place, HubPlace):  # what the client itself waits between its own attempts counts too
            clock = SimpleNamespace(sleep=place.waits.append)
            monkeypatch.setattr(client, "time", clock)
            monkeypatch.setattr(file_download.time, "sleep", place.waits.append)
        if start != "new":
            assert made.run(made.old).code == 0
            if isinstance(place, HubPlace):
                place.hub.log.clear()
                place.waits.clear()
            made.warned.clear()
        yield made


# --- how faults are done ---------------------------------------------------------------------------------------------


def when(scene: Scene, row: Row, step: Step, act: Callable[[int], Fault | None]) -> None:
    """Do something at the requests that a row strikes; the Hub answers as always where that gives no fault."""
    method, path = step.request(scene.transport)
    seen = 0

    def hook(request: Request) -> Fault | None:
        nonlocal seen
        if request.method != method or not re.search(path, request.path):
            return None
        seen += 1
        number = seen - 1 - row.after
        fault = act(number) if 0 <= number < row.times else None
        if fault is not None and fault.status is not None:
            scene.replaced.append(request)
        return fault

    scene.hub.faults.append(hook)


def reply(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """The Hub's answers are replaced, by several in turn."""
    answers = row.how if isinstance(row.how, tuple) else (row.how,)
    when(scene, row, step, lambda number: Fault(**answers[number % len(answers)]))


def cut(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """The line is cut when some bytes of a body have arrived."""
    scene.hub.cuts.append((*step.request(scene.transport), 1000))


def hang(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """One reply comes when nobody waits for it any more."""
    patch.setattr("publisher.hub.client.TIMEOUT", 0.5)
    patch.setenv("HF_XET_CLIENT_READ_TIMEOUT", "500ms")
    when(scene, row, step, lambda number: Fault(stall=0.8))


def forget(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """The store knows no pass any more."""
    when(scene, row, step, lambda number: scene.hub.passes.clear())


def revoke(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """The token, and every pass that it got."""

    def act(number: int) -> None:
        scene.hub.users.clear()
        scene.hub.passes.clear()

    when(scene, row, step, act)


def quota(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """The account's private storage holds less than these files."""
    scene.hub.private_quota = 5_000


def intrude(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """A file of somebody else, right before our commit."""

    def act(number: int) -> None:
        repo = scene.hub.repos[REPO]
        repo.add("By hand", repo.files | {"theirs.txt": Stored.of(THEIRS, False)}, author="eve")

    when(scene, row, step, act)


def remove(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """No repository of that name any more."""
    when(scene, row, step, lambda number: scene.hub.repos.pop(REPO, None) and None)


def open_(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """Public and ungated, by somebody in a browser."""

    def act(number: int) -> None:
        repo = scene.hub.repos[REPO]
        repo.private, repo.gated = False, False

    when(scene, row, step, act)


def twin(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """The same push, begun and ended while this one begins a phase."""
    scene.at[step.name] = lambda: scene.run(scene.new)


def rival(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """Another version, begun and ended while this one begins a phase."""
    scene.at[step.name] = lambda: scene.run(scene.other)


def kill(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """SIGKILL, before or after the Hub did what a request asked for."""
    known, pids = threading.Event(), list[int]()
    assert not isinstance(row.how, tuple)
    fault = Fault(**row.how)

    def started(pid: int) -> None:
        pids.append(pid)
        known.set()

    def act(number: int) -> Fault:
        assert known.wait(20)
        if not fault.lose_reply:
            os.kill(pids[0], signal.SIGKILL)
        return fault

    when(scene, row, step, act)
    if fault.lose_reply:
        after = scene.hub._handled

        def handled(request: Request, found: Fault | None) -> Any:
            done = after(request, found)
            if found is fault:
                os.kill(pids[0], signal.SIGKILL)
            return done

        patch.setattr(scene.hub, "_handled", handled)
    scene.in_child, scene.killed = {}, started


def full(scene: Scene, row: Row, step: Step, patch: pytest.MonkeyPatch) -> None:
    """No file may be written to the end."""
    scene.in_child = {"limit": 3_000}


ACTS: dict[str, Callable[[Scene, Row, Step, pytest.MonkeyPatch], None]] = {
    "reply": reply,
    "cut": cut,
    "hang": hang,
    "forget": forget,
    "revoke": revoke,
    "quota": quota,
    "intrude": intrude,
    "remove": remove,
    "open": open_,
    "twin": twin,
    "rival": rival,
    "kill": kill,
    "full": full,
}


# --- what must hold --------------------------------------------------------------------------------------------------


def tree(wanted: Publication) -> dict[str, bytes]:
    return {p.relative_to(wanted.folder).as_posix(): p.read_bytes() for p in wanted.folder.rglob("*") if p.is_file()}


def require_whole(scene: Scene, row: Row) -> None:
    """Nobody saw a part, or anything without a gate; what anybody can see now is one whole version."""
    place = scene.place
    whole = [tree(scene.new), tree(scene.other)] + ([tree(scene.old)] if scene.start == "public" else [])
    if row.act == "intrude" and scene.start == "public":  # what somebody else added to what users see is theirs
        whole += [edition | {"theirs.txt": THEIRS} for edition in (tree(scene.old), tree(scene.new))]
    if row.others:
        require_hidden_again(scene)
    else:
        assert not place.was_open()
        assert place.shown_in_parts(*whole) == []
    there = (place.base / "settings.json").exists() if isinstance(place, FolderPlace) else REPO in place.hub.repos
    if there and not place.settings()[0]:
        assert place.settings() == (False, "manual")
        assert place.files() in [*whole, {}]


def require_hidden_again(scene: Scene) -> None:
    """Somebody showed it: no more than one commit was under way, and it was private again before the next one."""
    landed = [
        item
        for item in scene.hub.requests("POST", "/commit/")
        if item.status == 200 and not item.state[REPO][0] and not set(item.trees[REPO]) >= LOADABLE
    ]
    assert len(landed) <= 1


def arrived(scene: Scene) -> Counter[str]:
    """How often each content arrived: objects over LFS, xorbs over Xet."""
    if isinstance(scene.place, FolderPlace):
        return Counter()
    log = scene.hub.requests("PUT", "/_lfs/") + scene.hub.requests("POST", "/v1/xorbs/")
    return Counter(item.path for item in log if item.status == 200 and not any(item is r for r in scene.replaced))


CASES = [
    pytest.param((transport, start), row, step, id=f"{row.fault[:50]}-{step.name}-{transport}-{start}")
    for row in ROWS
    if row.act != "kill anywhere"
    for step, transport, start in row.cases()
]


@pytest.mark.parametrize(("scene", "row", "step"), CASES, indirect=["scene"])
def test_fault(scene: Scene, row: Row, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    ACTS[row.act](scene, row, step, monkeypatch)
    first = scene.run()
    require_whole(scene, row)
    assert first.code == row.exit, first
    assert row.says.format(told=step.told) in first.message, first
    assert row.hint in first.hint, first
    assert (first.hint == "") == (row.exit <= 0)
    assert any(row.warns in said for said in scene.warned) or not row.warns, scene.warned
    if isinstance(scene.place, HubPlace) and row.waits:
        assert row.waits <= sum(scene.place.waits)
    scene.over()
    before = scene.changes()
    second = scene.run()
    assert second.code == row.again, second
    require_whole(scene, row)
    if second.code == 0:
        assert scene.place.files() == tree(scene.new)
        assert scene.place.settings() == (False, "manual")
    if row.then == "writes nothing":
        assert scene.changes() == before
    assert all(count <= 1 + row.resends for count in arrived(scene).values())


ANYWHERE = [
    pytest.param((transport, start), row, id=f"{transport}-{start}")
    for row in ROWS
    if row.act == "kill anywhere"
    for _, transport, start in row.cases()
]


@pytest.mark.parametrize(("scene", "row"), ANYWHERE, indirect=["scene"])
def test_a_folder_survives_a_kill_at_any_change(scene: Scene, row: Row, tmp_path: Path) -> None:
    """Killed at its first change of a file, at its second, and so on; each time what is visible is whole."""
    import shutil

    published = tmp_path / "published"
    published.mkdir(exist_ok=True)
    shutil.copytree(published, tmp_path / "kept", symlinks=True)
    number = 0
    while True:
        scene.in_child = {"audit": number}
        ended = scene.run()
        require_whole(scene, row)
        scene.in_child = None
        if ended.code == 0:
            break
        assert ended.code == row.exit, ended
        if number % 5 == 0:
            assert scene.run().code == row.again
            assert scene.place.files() == tree(scene.new)
            require_whole(scene, row)
        shutil.rmtree(published)
        shutil.copytree(tmp_path / "kept", published, symlinks=True)
        number += 1
    assert number > 20, "the push was killed at every change it makes"


def test_the_table_has_every_fault_and_every_act() -> None:
    assert {row.act for row in ROWS} == {*ACTS, "kill anywhere"}
    assert {step.name for row in ROWS for step, _, _ in row.cases()} >= set(STEPS)
    assert {transport for row in ROWS for transport in row.transports} == {"lfs", XET, "folder"}
