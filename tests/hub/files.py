"""Routes of a repository's files: listing, reading, and writing over plain LFS and commits."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs, quote

from tests.hub.cas import xet_hash, xet_headers
from tests.hub.repositories import Hub, Stored, blob_id, is_lfs, sha256
from tests.hub.wire import ID, REV, Refused, Reply, Request, Route, found_json, ranged


def blob(item: Stored) -> dict[str, Any]:
    lfs = {"oid": item.oid, "sha256": item.oid, "size": item.size, "pointerSize": 135} if item.lfs else None
    oid = blob_id(f"oid sha256:{item.oid}".encode()) if item.lfs else item.oid
    return {"size": item.size, "blobId": oid} | ({"lfs": lfs} if lfs else {})


def entry(hub: Hub, path: str, item: Stored) -> dict[str, Any]:
    found, xet = blob(item), xet_hash(hub, item)
    found |= {"xetHash": xet} if xet else {}
    named = {"type": "file", "path": path, "size": item.size, "oid": found.pop("blobId")}
    return found | named


def tree(hub: Hub, request: Request, repo: str, rev: str, path: str = "") -> Reply:
    found = hub.repo(request, repo)
    _, files = hub.revision(found, rev)
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
            entries[name] = entry(hub, name, item)
    if path and not entries:
        raise Refused(404, f"{path} does not exist", "EntryNotFound")
    return page(hub, request, list(entries.values()))


def page(hub: Hub, request: Request, entries: list[dict[str, Any]]) -> Reply:
    start = int(request.query.get("cursor", ["0"])[0])
    reply = found_json(entries[start : start + hub.page_size])
    if start + hub.page_size < len(entries):
        query = {name: values[0] for name, values in request.query.items()} | {"cursor": start + hub.page_size}
        address = f"{hub.endpoint}{request.path}?" + "&".join(f"{k}={quote(str(v))}" for k, v in query.items())
        reply.headers["Link"] = f'<{address}>; rel="next"'
    return reply


def paths_info(hub: Hub, request: Request, repo: str, rev: str) -> Reply:
    _, files = hub.revision(hub.repo(request, repo), rev)
    wanted = parse_qs(request.body.decode()).get("paths", [])
    return found_json([entry(hub, path, files[path]) for path in wanted if path in files])


def resolve(hub: Hub, request: Request, repo: str, rev: str, path: str) -> Reply:
    sha, files = hub.revision(hub.readable(request, repo), rev)
    if path not in files:
        refused = Refused(404, f"{path} does not exist", "EntryNotFound")
        refused.reply.headers["X-Repo-Commit"] = sha
        raise refused
    item = files[path]
    data = hub.blobs[item.oid] if item.lfs else item.data
    headers = {
        "ETag": f'"{item.oid}"',
        "X-Repo-Commit": sha,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if item.lfs:
        headers |= {"X-Linked-Etag": f'"{item.oid}"', "X-Linked-Size": str(item.size)}
        headers |= xet_headers(hub, item, repo, sha)
        if hub.redirect:
            return Reply(302, b"", headers | {"Location": hub.signed(f"/_lfs/{item.oid}")})
    return ranged(request, data, headers)


def preupload(hub: Hub, request: Request, repo: str, rev: str) -> Reply:
    _, files = hub.revision(hub.writable(request, repo), rev)
    answer = []
    for item in request.json()["files"]:
        mode = "lfs" if is_lfs(item["path"], item["size"]) else "regular"
        there = files.get(item["path"])
        wanted = {"path": item["path"], "uploadMode": mode, "shouldIgnore": False}
        answer.append(wanted | ({"oid": there.oid} if there else {}))
    return found_json({"files": answer})


def lfs_batch(hub: Hub, request: Request, repo: str) -> Reply:
    found, objects = hub.writable(request, repo), []
    hub.require_room(found, sum(item["size"] for item in request.json()["objects"] if item["oid"] not in hub.blobs))
    for item in request.json()["objects"]:
        wanted: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in hub.blobs:
            upload = {"href": f"{hub.endpoint}/_lfs/{item['oid']}?X-Amz-Signature=secret"}
            wanted["actions"] = {"upload": upload, "verify": {"href": f"{hub.endpoint}/_lfs/verify/{repo}"}}
        objects.append(wanted)
    return found_json({"transfer": "basic", "objects": objects})


def lfs_put(hub: Hub, request: Request, oid: str) -> Reply:
    if sha256(request.body) != oid:
        raise Refused(400, "checksum mismatch")
    hub.blobs[oid] = request.body
    return Reply(headers={"ETag": f'"{oid}"'})


def lfs_get(hub: Hub, request: Request, oid: str) -> Reply:
    if request.token is not None:
        raise Refused(400, "a token was sent to another origin")
    hub.require_signature(request)
    return ranged(request, hub.blobs[oid], {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"})


def lfs_verify(hub: Hub, request: Request, repo: str) -> Reply:
    hub.writable(request, repo)
    if request.json()["oid"] not in hub.blobs:
        raise Refused(404, "object does not exist")
    return found_json({"message": "OK"})


def commit(hub: Hub, request: Request, repo: str, rev: str) -> Reply:
    found = hub.writable(request, repo)
    head, files = hub.revision(found, rev)
    files, lines = dict(files), request.lines()
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, head):
        raise Refused(412, "The branch was updated since you opened this page. Please refresh and try again.")
    large = [line["value"] for line in lines[1:] if line["key"] == "lfsFile"]
    known = {item.oid for _, _, there in found.commits for item in there.values()}
    hub.require_room(found, sum(item.get("size", 0) for item in large if item["oid"] not in known))
    for line in lines[1:]:
        change(hub, files, line["key"], line["value"])
    user = hub.account(request)
    author = user.name if user else ""
    sha = found.add(header["summary"], files, rev, message=header.get("description", ""), author=author)
    return found_json({"success": True, "commitOid": sha, "commitUrl": f"{hub.endpoint}/{repo}/commit/{sha}"})


def change(hub: Hub, files: dict[str, Stored], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = Stored.of(base64.b64decode(value["content"]), False)
    elif key == "lfsFile":
        if value["oid"] not in hub.blobs:
            raise Refused(400, f"LFS object {value['oid']} was not uploaded")
        files[path] = Stored(b"", True, value["oid"], value.get("size", len(hub.blobs[value["oid"]])))
    elif key in ("deletedFile", "deletedFolder"):
        gone = [name for name in files if name == path or name.startswith(path.rstrip("/") + "/")]
        if not gone:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise Refused(400, f"unknown operation {key}")


FILES: tuple[Route, ...] = (
    ("GET", rf"/api/models/{ID}/tree/{REV}(?:/(?P<path>.+))?", tree),
    ("POST", rf"/api/models/{ID}/paths-info/{REV}", paths_info),
    ("POST", rf"/api/models/{ID}/preupload/{REV}", preupload),
    ("POST", rf"/api/models/{ID}/commit/{REV}", commit),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", rf"/_lfs/verify/{ID}", lfs_verify),
    ("GET|HEAD", r"/_lfs/(?P<oid>[0-9a-f]{64})", lfs_get),
    ("PUT", r"/_lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
    ("GET|HEAD", rf"/{ID}/resolve/{REV}/(?P<path>.+)", resolve),
)
