"""What can go wrong during a push, as data: the fault, the step it strikes, what the user sees, what the next run does.

Each row is run with the real client by `test_faults.py`, at each of its steps, over each transport and from each
start; `docs/faults.md` is written from the same rows. A row that is not true fails there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LFS, XET = "lfs", "xet"
TRANSPORTS = (LFS, XET)
STARTS: Mapping[str, str] = {
    "new": "a new repository",
    "private": "an update of a private one",
    "public": "an update of a public one",
}
SHORT = ("new", "public")
MODEL = "/api/models/org/tiny-nvfp4"
EVER = 1_000_000
HTML = b"<html><head><title>Maintenance</title></head><body>Back soon.</body></html>"
PAGE = {"Content-Type": "text/html"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One kind of request of a push: method and path, which may differ by transport.

    Args:
        name: what it does, for people.
        lfs: method and pattern of the path over plain LFS.
        xet: the same over Xet; as over LFS when not given.
        told: how a message names it, after "would not".
        starts: where it happens.
        writes: it changes something.
    """

    name: str
    lfs: tuple[str, str] = ("", "")
    xet: tuple[str, str] | None = None
    told: str = ""
    starts: tuple[str, ...] = tuple(STARTS)
    writes: bool = False

    @property
    def differs(self) -> bool:
        """Whether it matters which transport is used: the request, or what came before, is another."""
        return self.xet is not None or self.name == "commit" or not self.lfs[0]

    def request(self, transport: str) -> tuple[str, str]:
        """Method and path pattern on a transport."""
        return self.xet if transport == XET and self.xet else self.lfs


_STEPS = (
    Step(name="ask who is logged in", lfs=("GET", "/whoami-v2$"), told="say who the token belongs to"),
    Step(name="check the card", lfs=("POST", "/validate-yaml$"), told="check the card's metadata"),
    Step(name="read the settings", lfs=("GET", f"{MODEL}$"), told="read the settings"),
    Step(name="create the repository", lfs=("POST", "/repos/create$"), told="create it", starts=("new",), writes=True),
    Step(
        name="open the pull request",
        lfs=("POST", "/discussions$"),
        told="open a pull request",
        starts=("public",),
        writes=True,
    ),
    Step(name="ask what to send", lfs=("POST", "/preupload/"), told="transfer"),
    Step(name="ask where to send", lfs=("POST", "/objects/batch$"), xet=("GET", "/xet-write-token/"), told="transfer"),
    Step(name="send weights", lfs=("PUT", "/_lfs/"), xet=("POST", "/v1/xorbs/"), told="transfer", writes=True),
    Step(name="end sending", lfs=("POST", "/_lfs/verify/"), xet=("POST", "/shards$"), told="transfer", writes=True),
    Step(name="commit", lfs=("POST", "/commit/"), told="commit", writes=True),
    Step(name="list files", lfs=("GET", "/tree/"), told="list its files"),
    Step(name="find a file", lfs=("HEAD", "/resolve/"), told="read"),
    Step(
        name="read weights back",
        lfs=("GET", r"/resolve/.*\.safetensors$"),
        xet=("GET", "/reconstructions/"),
        told="read model-0000",
    ),
    Step(name="merge", lfs=("POST", "/merge$"), told="merge the pull request", starts=("public",), writes=True),
    Step(
        name="set gate and visibility",
        lfs=("PUT", "/settings$"),
        told="set gate and visibility",
        starts=("new", "private"),
        writes=True,
    ),
    Step(name="tag", lfs=("POST", "/tag/"), told="set the tag", writes=True),
)
STEPS: Mapping[str, Step] = {step.name: step for step in _STEPS}
EVERYWHERE = tuple(STEPS)
WRITES = tuple(name for name, step in STEPS.items() if step.writes)
SENDING = ("ask where to send", "send weights", "end sending")
BEFORE_SHOWN = (*SENDING, "ask what to send", "commit", "list files", "find a file", "read weights back")
PHASES = ("repository", "weights", "digests", "last commit", "read back", "merge", "release", "settings", "tag")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        fault: what happens, for people.
        steps: the requests it strikes, by name; or phases of a push.
        act: how it is done: `reply` (the Hub's answer is replaced), or another act of the harness.
        how: of `reply`, the fields of the loopback's `Fault`, several in turn where it is a tuple.
        times: how many requests meet it.
        after: how many pass before.
        exit: how the push ends; 0 where it is survived, negative where a signal ended it.
        says: part of its message; "{told}" is the step's.
        hint: part of the next step it names.
        warns: part of a warning it gives on the way.
        waits: seconds that it waits for the Hub, at least.
        again: how the next run ends, when the fault is over.
        then: what the next run does, for people.
        starts: where it is tried.
        transports: where it is tried.
        resends: contents that may be sent once more: their arrival was never told.
        others: somebody else showed the repository; what the push had not proven may be seen until it hides it.
    """

    fault: str
    steps: tuple[str, ...]
    act: str = "reply"
    how: Mapping[str, Any] | tuple[Mapping[str, Any], ...] = field(default_factory=dict)
    times: int = 1
    after: int = 0
    exit: int = 0
    says: str = ""
    hint: str = ""
    warns: str = ""
    waits: float = 0.0
    again: int = 0
    then: str = "writes nothing"
    starts: tuple[str, ...] = tuple(STARTS)
    transports: tuple[str, ...] = TRANSPORTS
    resends: int = 0
    others: bool = False

    def cases(self) -> Iterator[tuple[Step, str, str]]:
        """Step, transport and start of every run of this row."""
        for name in self.steps:
            step = STEPS.get(name) or Step(name=name)
            for transport in self.transports:
                for start in self.starts:
                    if start in step.starts and (transport == self.transports[0] or step.differs):
                        yield step, transport, start


def without(names: tuple[str, ...], *left_out: str) -> tuple[str, ...]:
    """The steps but for some."""
    return tuple(name for name in names if name not in left_out)


NEEDED = without(EVERYWHERE, "end sending")  # over LFS it is a question that the next attempt need not ask
BURST = tuple({"status": status, "body": HTML, "headers": PAGE} for status in (500, 502, 504))
DEAD = {"status": 503, "body": HTML, "headers": PAGE}
MOVED = {"status": 412, "body": b'{"error": "The branch was updated since you opened this page."}'}
GONE_BY = {"status": 403, "body": b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"}
FULL = {"status": 402, "body": b'{"error": "Private repository storage limit reached"}'}
GOES_ON = "goes on from there and completes"
WINS = "writes nothing"  # the later one has published over the other
AGAIN = "Run the same command again"
ROWS: tuple[Row, ...] = (
    # --- replies that are lost, late or broken ---
    Row(
        fault="the reply is lost after the Hub did what was asked",
        steps=WRITES,
        how={"lose_reply": True},
        starts=SHORT,
        resends=1,
    ),
    Row(fault="the connection is dropped once", steps=EVERYWHERE, how={"drop": True}, starts=SHORT),
    Row(
        fault="the connection breaks in the middle of an upload",
        steps=("send weights", "commit"),
        act="cut",
    ),
    Row(
        fault="the line stays dead",
        steps=NEEDED,
        how={"drop": True},
        times=EVER,
        starts=SHORT,
        exit=4,
        says="would not {told}",
        hint=AGAIN,
        then=GOES_ON,
    ),
    Row(fault="three replies in a row are 500, 502 and 504", steps=EVERYWHERE, how=BURST, times=3, starts=SHORT),
    Row(
        fault="every reply is 503, as an HTML page",
        steps=NEEDED,
        how=DEAD,
        times=EVER,
        starts=SHORT,
        exit=4,
        says="would not {told}",
        hint=AGAIN,
        then=GOES_ON,
    ),
    Row(
        fault="one reply is an HTML page with status 200",
        steps=without(EVERYWHERE, "set gate and visibility"),
        how=DEAD | {"status": 200},
        starts=SHORT,
        resends=1,
    ),
    Row(
        fault="one reply is an HTML page with status 200",
        steps=("set gate and visibility",),
        how=DEAD | {"status": 200},
        exit=4,
        says="was left private",
        hint="run the same command again",
        then=GOES_ON,
    ),
    Row(
        fault="every reply is an HTML page with status 200",
        steps=NEEDED,
        how=DEAD | {"status": 200},
        times=EVER,
        starts=SHORT,
        exit=4,
        hint="again",
        then=GOES_ON,
    ),
    Row(fault="the Hub hangs once, longer than the time-out", steps=EVERYWHERE, act="hang", starts=SHORT, resends=1),
    Row(
        fault="429 with `Retry-After: 7`",
        steps=EVERYWHERE,
        how={"status": 429, "headers": {"Retry-After": "7"}},
        starts=("new",),
        transports=(LFS,),
        waits=7,
    ),
    Row(
        fault='429 with `RateLimit: "api";r=0;t=9`',
        steps=EVERYWHERE,
        how={"status": 429, "headers": {"RateLimit": '"api";r=0;t=9'}},
        starts=("new",),
        transports=(LFS,),
        waits=9,
    ),
    Row(fault="429 without a word how long", steps=EVERYWHERE, how={"status": 429}, starts=("new",)),
    Row(
        fault="every reply to the question whether contents arrived is 503",
        steps=("end sending",),
        how=DEAD,
        times=EVER,
        starts=SHORT,
        transports=(LFS,),
    ),
    Row(
        fault="every reply to the list of what was sent is 503",
        steps=("end sending",),
        how=DEAD,
        times=EVER,
        starts=SHORT,
        transports=(XET,),
        exit=4,
        says="would not transfer",
        hint=AGAIN,
        then=GOES_ON,
    ),
    # --- contents ---
    Row(
        fault="the upload address has expired once",
        steps=("send weights",),
        how=GONE_BY,
        transports=(LFS,),
    ),
    Row(
        fault="every upload address has expired",
        steps=("send weights",),
        how=GONE_BY,
        times=EVER,
        transports=(LFS,),
        exit=4,
        says="Request has expired",
        hint=AGAIN,
        then=GOES_ON,
    ),
    Row(
        fault="the store forgets the pass that the Hub gave for uploads",
        steps=("send weights", "end sending"),
        act="forget",
        transports=(XET,),
        resends=1,
    ),
    Row(
        fault="what arrived is damaged in the store",
        steps=("send weights",),
        how={"corrupt": True},
        exit=4,
        says="sha256",
        hint="delete that file for good",
        again=4,
        then="ends the same way until the damaged contents are deleted",
    ),
    # --- the account ---
    Row(
        fault="the token is revoked",
        steps=EVERYWHERE,
        act="revoke",
        starts=SHORT,
        exit=3,
        hint="hf auth login",
        then="with a token that is good, goes on from there and completes",
    ),
    Row(
        fault="402: no storage left, even in public",
        steps=("ask where to send", "send weights", "commit"),
        how=FULL,
        times=EVER,
        exit=3,
        says="402",
        hint="Make room",
        then="with room, goes on from there and completes",
    ),
    Row(
        fault="private storage is too small",
        steps=("ask who is logged in",),
        act="quota",
        starts=("new",),
        warns="prepared in public behind a manual gate",
    ),
    Row(
        fault="private storage is too small",
        steps=("ask who is logged in",),
        act="quota",
        starts=("private",),
        exit=3,
        says="storage limit reached",
        hint="Make room",
        then="with room, goes on from there and completes",
    ),
    Row(
        fault="403: no storage left, even in public",
        steps=("ask where to send", "commit"),
        how={"status": 403, "body": FULL["body"]},
        times=EVER,
        transports=(LFS,),
        exit=3,
        says="storage limit reached",
        hint="Make room",
        then="with room, goes on from there and completes",
    ),
    Row(
        fault="403 for the pass to send with, of which the transport tells no reason",
        steps=("ask where to send",),
        how={"status": 403, "body": FULL["body"]},
        times=EVER,
        transports=(XET,),
        exit=3,
        says="403",
        hint="make room",
        then="with room, or another token, goes on from there and completes",
    ),
    Row(
        fault="413: the contents are too large for the Hub",
        steps=("send weights", "commit"),
        how={"status": 413, "body": b'{"error": "Payload too large"}'},
        times=EVER,
        exit=3,
        says="413",
        hint="Make room",
        then=GOES_ON,
    ),
    # --- somebody else ---
    Row(fault="412: the branch seems to have moved, and has not", steps=("commit",), how=MOVED),
    Row(
        fault="412 for every commit",
        steps=("commit",),
        how=MOVED,
        times=EVER,
        exit=4,
        says="The branch was updated",
        hint=AGAIN,
        then=GOES_ON,
    ),
    Row(
        fault="somebody commits to the branch",
        steps=("commit",),
        act="intrude",
        exit=4,
        says="committed 'By hand'",
        hint="See what was changed",
        then="tells first that it removes what does not belong, and completes",
    ),
    Row(
        fault="somebody commits to the branch between the last look and the merge, which the Hub lets happen",
        steps=("merge",),
        act="intrude",
        exit=4,
        says="Users see both",
        hint="See what was changed",
        then="tells first that it removes what does not belong, and completes",
    ),
    Row(
        fault="somebody removes the repository",
        steps=BEFORE_SHOWN,
        act="remove",
        exit=4,
        says="is gone",
        hint="make it anew",
        then="makes it anew",
        resends=1,
    ),
    Row(
        fault="somebody makes the repository public, without a gate",
        steps=("ask what to send", "send weights", "commit", "list files", "find a file", "read weights back"),
        act="open",
        starts=("new", "private"),
        others=True,
        warns="it is hidden again",
    ),
    Row(
        fault="another push of the same files runs and ends first",
        steps=PHASES,
        act="twin",
    ),
    Row(
        fault="another push of other files runs and ends first",
        steps=("repository",),
        act="rival",
        then=WINS,
    ),
    Row(
        fault="another push of other files runs and ends first",
        steps=("weights", "digests", "last commit", "read back", "merge"),
        act="rival",
        starts=("public",),
        exit=4,
        says="was changed while this push was running: ada committed",
        hint="See what was changed",
        then="publishes these files over the others",
    ),
    Row(
        fault="another push of other files runs and ends first",
        steps=("weights", "digests", "last commit", "read back", "release"),
        act="rival",
        starts=("new", "private"),
        exit=4,
        says="was changed while this push was running: ada committed",
        hint="See what was changed",
        then="publishes these files over the others",
    ),
    Row(
        fault="another push of other files runs and ends after these were published",
        steps=("settings",),
        act="rival",
        exit=4,
        says="was changed while this push was running: ada committed",
        hint="See what was changed",
        then="publishes these files over the others",
    ),
    Row(
        fault="another push of other files runs and ends after these were published",
        steps=("tag",),
        act="rival",
        then="publishes these files over the others",
    ),
    # --- this machine ---
    Row(
        fault="the push is killed before the Hub does what was asked",
        steps=EVERYWHERE,
        act="kill",
        how={"drop": True},
        exit=-9,
        then=GOES_ON,
    ),
    Row(
        fault="the push is killed after the Hub did what was asked",
        steps=WRITES,
        act="kill",
        how={"lose_reply": True},
        exit=-9,
        then=GOES_ON,
        resends=1,
    ),
    Row(
        fault="the disk for what is read back is full",
        steps=("read weights back",),
        act="full",
        exit=4,
        says="File too large",
        hint="Check this machine's disk",
        then=GOES_ON,
    ),
    Row(
        fault="the push is killed at any change of a file",
        steps=("write",),
        act="kill anywhere",
        transports=("folder",),
        exit=-9,
        then=GOES_ON,
    ),
    Row(
        fault="the target's disk is full",
        steps=("write",),
        act="full",
        transports=("folder",),
        exit=4,
        says="File too large",
        hint="Make room",
        then=GOES_ON,
    ),
)


# --- the table as a document -----------------------------------------------------------------------------------------

ABOUT = """# What a push survives

Generated by `make docs` from `tests/hub/faults.py`. `tests/hub/test_faults.py` runs every line with the real Hub client
against a Hub on this machine, at each step named, and checks after each that

- nobody ever saw a part of a version, or any of it without the gate that was asked for, by the log of that Hub;
- the repository holds exactly the manifest, or is not public; a public one that is updated shows exactly the old or
  exactly the new version;
- exit code and message are those in the table;
- the next run ends as the table says, and sends nothing again that had arrived.

*Transports*: plain LFS, Xet (the client's default), and a folder as the target. *Starts*: a new repository, an update
of a private one, an update of a public one. Where neither is named, all were tried that have the step; requests that
are the same on both transports on one of them. The exit codes are those of [every command](commands.md): 0 published
and proven, 3 login or room, 4 Hub or network.
"""


def markdown() -> str:
    """`docs/faults.md`."""
    lines = [ABOUT, "| What happens | At which step | The push | It says | The next run |", "|---|---|---|---|---|"]
    lines += [f"| {_what(row)} | {_where(row)} | {_ends(row)} | {_says(row)} | {row.then} |" for row in ROWS]
    steps = ["", "## Steps", "", "| Step | Over LFS | Over Xet | Changes something |", "|---|---|---|---|"]
    steps += [
        f"| {step.name} | {_request(step.lfs)} | {_request(step.request(XET))} | {'yes' if step.writes else ''} |"
        for step in STEPS.values()
    ]
    return "\n".join([*lines, *steps]) + "\n"


def _request(request: tuple[str, str]) -> str:
    method, path = request
    shown = path.replace(MODEL, "/api/models/ID").replace(r".*\.safetensors$", "…").rstrip("$")
    return f"`{method} {shown}`"


def _what(row: Row) -> str:
    limits = []
    if row.starts != tuple(STARTS):
        limits.append(" or ".join(STARTS[start] for start in row.starts))
    if row.transports != TRANSPORTS:
        limits.append({LFS: "plain LFS", XET: "Xet", "folder": "a folder"}[row.transports[0]])
    return row.fault + (f" ({'; '.join(limits)})" if limits else "")


def _where(row: Row) -> str:
    named = {
        NEEDED: "every one but “end sending”",
        EVERYWHERE: "every one",
        WRITES: "every one that changes something",
        PHASES: "any",
    }
    return named.get(row.steps) or ", ".join(row.steps)


def _ends(row: Row) -> str:
    return "is killed" if row.exit < 0 else "completes (0)" if row.exit == 0 else f"ends with {row.exit}"


def _says(row: Row) -> str:
    parts = [f"“…{row.says.format(told='⟨what it was doing⟩')}…”"] if row.says else []
    parts += [f"warns “…{row.warns}…”"] if row.warns else []
    parts += [f"next step: “…{row.hint}…”"] if row.hint else []
    parts += [f"waits {row.waits:.0f} s or more"] if row.waits else []
    return "; ".join(parts).replace("|", "\\|")
