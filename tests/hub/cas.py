"""Xet beside plain LFS: the loopback Hub's content-addressed store, as the real client's default transport calls it.

Which transport a test uses is a fixture's choice (tests/hub/conftest.py): `hub` alone is plain LFS, as
tests/conftest.py sets it for every test; the fixture `xet` switches the real client to Xet for one test, with caches of
its own and short waits. `place` runs a test on a folder, over LFS and over Xet. The log tells them apart:

| step | plain LFS | Xet |
|---|---|---|
| what is to be sent | POST /api/models/ID/preupload/REV | the same |
| permission to send | POST /ID.git/info/lfs/objects/batch | GET /api/models/ID/xet-write-token/REV |
| what is there already | (in the batch reply) | GET /cas/v1/chunks/default/HASH (404: not known) |
| sending | PUT /_lfs/SHA256 | POST /cas/v1/xorb-grants/default/HASH (404: send here), POST /cas/v1/xorbs/default/HASH |
| arrived? | POST /_lfs/verify/ID | POST /cas/v2/shards, where that is 404 POST /cas/v1/shards |
| naming the files | POST /api/models/ID/commit/REV | the same |
| metadata of a file | HEAD /ID/resolve/REV/PATH | the same; X-Xet-Hash and Link rel="xet-auth" in the reply |
| permission to read | (in the redirect) | GET /api/models/ID/xet-read-token/COMMIT |
| reading | GET /ID/resolve/REV/PATH | GET /cas/v2/reconstructions/FILE, where that is 404 /cas/v1/... |
| ... from elsewhere | GET /_lfs/SHA256 with `hub.redirect` | GET /_xet/HASH |

`hub.fail(...)`, `hub.requests(...)` and the state in the log work on all of them. `corrupt=True` on a xorb spoils what
arrives (the shard naming it is refused, as its sha256 does not follow); on a shard it spoils the contents after they
were accepted, which nobody notices who does not hash. Small files are in the commit itself on both transports.

hf_xet repeats a store request five times by itself after 429, 5xx, a dropped connection, an answer that is no JSON, and
for `/_xet/` after 403 (so a fault for good is six requests an attempt); any other status ends the upload at once. It
surfaces as a builtin ConnectionError (writing) or RuntimeError (reading, a shard's events) whose text names the status.

A file exists for a commit only after its shard was accepted: its bytes are decoded from the uploaded xorbs and their
sha256 computed anew. Read tokens obey the gate and privacy when they are given out, and stay good until they expire
(`hub.xet_lifetime`), as signed addresses do (`hub.lifetime`). Files that came another way can be read over Xet too.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from tests.hub.repositories import Hub, Stored
from tests.hub.wire import ID, REV, Refused, Reply, Request, Route, found_json, ranged
from tests.hub.xorbs import Malformed, Reconstructed, SentFile, Term, Xorb, runs, shard_files

PREFIX = "/cas"
HASH = r"(?P<name>[0-9a-f]{64})"


@dataclass(frozen=True, slots=True)
class Pass:
    """What a Xet token allows: `kind` is read or write."""

    kind: str
    repo: str
    until: float


def token(hub: Hub, request: Request, repo: str, kind: str, rev: str) -> Reply:
    """A short-lived token, in the two shapes that hf_xet and huggingface_hub read."""
    found = hub.writable(request, repo) if kind == "write" else hub.readable(request, repo)
    if "create_pr" not in request.query:
        hub.revision(found, rev)
    made = f"xet-{kind}-{len(hub.passes):08x}"
    until = time.time() + hub.xet_lifetime
    hub.passes[made] = Pass(kind, repo, until)
    address = hub.endpoint + PREFIX
    reply = found_json({"casUrl": address, "accessToken": made, "exp": int(until)})
    reply.headers |= {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": made, "X-Xet-Token-Expiration": str(int(until))}
    return reply


def allowed(hub: Hub, request: Request, kind: str) -> Pass:
    """The token of a request, which must be good for reading, or for writing."""
    found = hub.passes.get(request.token or "")
    if found is None or found.until < time.time() or found.repo not in hub.repos:
        raise Refused(401, "Unauthorized")
    if kind == "write" and found.kind != "write":
        raise Refused(403, "Forbidden")
    return found


# --- uploads ---------------------------------------------------------------------------------------------------------


def known_chunk(hub: Hub, request: Request, name: str) -> Reply:
    allowed(hub, request, "read")
    raise Refused(404, "Not found")


def xorb_grant(hub: Hub, request: Request, name: str) -> Reply:
    allowed(hub, request, "write")
    raise Refused(404, "Not found")


def xorb(hub: Hub, request: Request, name: str) -> Reply:
    allowed(hub, request, "write")
    try:
        parsed = Xorb.parsed(request.body)
    except Malformed as problem:
        raise Refused(400, str(problem)) from None
    new = name not in hub.store.xorbs
    if new:
        hub.store.xorbs[name] = parsed
    return found_json({"was_inserted": new})


def shard(hub: Hub, request: Request, version: str) -> Reply:
    """Files become known by what their chunks decode to; version 2 answers in events, errors among them."""
    allowed(hub, request, "write")
    if int(version) > hub.xet_version:
        raise Refused(404, "Not found")
    try:
        files = shard_files(request.body)
        for file in files:
            hub.blobs[file.sha256] = hub.store.add(file)
    except Malformed as problem:
        if version == "1":
            raise Refused(400, str(problem)) from None
        return _events({"type": "error", "message": str(problem), "retryable": False})
    if version == "1":
        return found_json({"result": 1})
    checked = {"type": "validating", "verified": len(files), "total": len(files)}
    return _events(checked, {"type": "committing", "stage": "syncing"}, {"type": "result"})


def _events(*events: dict[str, Any]) -> Reply:
    body = "".join(json.dumps(event) + "\n" for event in events).encode()
    return Reply(200, body, {"Content-Type": "application/x-ndjson"})


# --- downloads -------------------------------------------------------------------------------------------------------


def xet_hash(hub: Hub, item: Stored) -> str | None:
    """The name a large file has in the store; files kept on disk have none and are read over plain HTTP."""
    content = hub.blobs.get(item.oid) if item.lfs else None
    if isinstance(content, Reconstructed):
        return content.file.id
    return item.oid if isinstance(content, bytes) else None


def xet_headers(hub: Hub, item: Stored, repo: str, commit: str) -> dict[str, str]:
    """What a reply about a file says of its place in the store."""
    name = xet_hash(hub, item)
    if name is None:
        return {}
    address = f"{hub.endpoint}/api/models/{repo}/xet-read-token/{commit}"
    return {"X-Xet-Hash": name, "Link": f'<{address}>; rel="xet-auth"'}


def reconstruction(hub: Hub, request: Request, version: str, name: str) -> Reply:
    """Where the chunks of a file are, or of the range of it that is asked for."""
    if int(version) > hub.xet_version:
        raise Refused(404, "Not found")
    file, xorbs = _readable(hub, allowed(hub, request, "read"), name)
    size = sum(term.size for term in file.terms)
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.range or "")
    begin, end = (int(match[1]), min(int(match[2]) + 1, size)) if match else (0, size)
    if begin >= size:
        raise Refused(416, "Range not satisfiable")
    skipped, found = runs(file, xorbs, begin, end)
    terms = [{"hash": run.xorb, "unpacked_length": run.size, "range": _span(run.first, run.last)} for run in found]
    fetch: dict[str, list[dict[str, Any]]] = {}
    for one in sorted({run.xorb for run in found}):
        offsets, spans = xorbs[one].offsets, _merged([(run.first, run.last) for run in found if run.xorb == one])
        places = [(_span(first, last), _span(offsets[first], offsets[last] - 1)) for first, last in spans]
        signed = hub.signed(f"/_xet/{one}") + "&ranges=" + ",".join(f"{at['start']}-{at['end']}" for _, at in places)
        if version == "1":
            fetch[one] = [{"range": chunks, "url": signed, "url_range": at} for chunks, at in places]
        else:
            fetch[one] = [{"url": signed, "ranges": [{"chunks": chunks, "bytes": at} for chunks, at in places]}]
    return found_json(
        {"offset_into_first_range": skipped, "terms": terms, "fetch_info" if version == "1" else "xorbs": fetch}
    )


def _readable(hub: Hub, held: Pass, name: str) -> tuple[SentFile, dict[str, Xorb]]:
    """A file that the token's repository has, and the xorbs it is in."""
    made = hub.store.files.get(name)
    oid = made.file.sha256 if made else name
    repo = hub.repos[held.repo]
    trees = [files for line in (repo.commits, *repo.sides.values()) for _, _, files in line]
    if not any(item.oid == oid and item.lfs for files in trees for item in files.values()):
        raise Refused(404, "File not found")
    content = hub.blobs[oid]
    if isinstance(content, Reconstructed):
        return content.file, hub.store.xorbs
    kept = Xorb.of(content[:])
    return SentFile(oid, (Term(oid, 0, len(kept.chunks), len(content)),), oid), {oid: kept}


def _span(start: int, end: int) -> dict[str, int]:
    return {"start": start, "end": end}


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of chunks in order, those that touch as one: the client takes no two that overlap."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def chunks(hub: Hub, request: Request, name: str) -> Reply:
    """Bytes of a xorb from a signed address, good for the ranges it was signed for and nothing else."""
    if request.token is not None:
        raise Refused(400, "a token was sent to another origin")
    hub.require_signature(request)
    signed = request.query.get("ranges", [""])[0].split(",")
    if (request.range or "").removeprefix("bytes=") not in signed:
        raise Refused(403, "The range is not the one that was signed")
    kept = hub.store.xorbs.get(name) or Xorb.of(hub.blobs[name][:])
    return ranged(request, kept.served(), {"Content-Type": "application/octet-stream"})


def spoil(hub: Hub, request: Request) -> None:
    """Turn over a bit in what a request has stored: a xorb, the files of a shard, an LFS object."""
    name = request.path.rsplit("/", 1)[1]
    if name in hub.store.xorbs:
        hub.store.xorbs[name].corrupt(0)
    elif request.path.endswith("/shards"):
        hub.corrupt(shard_files(request.body)[0].sha256)
    else:
        hub.corrupt(name)


CAS: tuple[Route, ...] = (
    ("GET|HEAD", rf"/api/models/{ID}/xet-(?P<kind>read|write)-token/{REV}", token),
    ("GET", rf"{PREFIX}/v1/chunks/[\w-]+/{HASH}", known_chunk),
    ("POST", rf"{PREFIX}/v1/xorb-grants/[\w-]+/{HASH}", xorb_grant),
    ("POST", rf"{PREFIX}/v1/xorbs/[\w-]+/{HASH}", xorb),
    ("POST", rf"{PREFIX}/v(?P<version>[12])/shards", shard),
    ("GET", rf"{PREFIX}/v(?P<version>[12])/reconstructions/{HASH}", reconstruction),
    ("GET", rf"/_xet/{HASH}", chunks),
)
