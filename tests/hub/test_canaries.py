"""No secret of this machine is ever told: canaries in the environment of every verb, of detached runs and of the app.

The Hub's login and a job's other secrets are strings of no known form, with characters that are written differently in
addresses and in base64. Verbs succeed and fail against a Hub that repeats the token in messages, headers, signed
addresses and pages; afterwards no file of the workspace, no output, no exception and nothing that was sent holds a
canary in any spelling.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from huggingface_hub import constants

from publisher.checkpoint.pace import Pace
from publisher.cli import main
from publisher.errors import PublisherError
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.patience import Patience
from publisher.hub.push import push
from publisher.hub.target import Publication
from publisher.runners import local
from publisher.ui import runs, runview
from tests.builders.tiny import llama
from tests.cli.conftest import ROOT, Workspace
from tests.evals.conftest import real
from tests.evals.endpoint import endpoint, install_stand_in
from tests.hub.loopback import LoopbackHub

TOKEN = "canary+Token/of=noKnownForm~9"
SECRETS = {
    "HF_TOKEN": TOKEN,
    "WANDB_API_KEY": "canary-of-the-tracker-0123",
    "AWS_SECRET_ACCESS_KEY": "canary/of+the/store/4567890",
    "OPENAI_API_KEY": "canary-of-the-endpoint-5432",
    "DATABASE_PASSWORD": "canary!of!the?database",
}
REPO = "demo/tiny-fp4"


def spellings(secret: str) -> Iterator[bytes]:
    """A secret as it stands, in an address, in JSON, and in base64 after any number of other bytes."""
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].replace("/", "\\/").encode()
    for before in range(3):
        whole = base64.b64encode(b"x" * before + secret.encode())[4:-4]
        yield whole
        yield whole.replace(b"+", b"-").replace(b"/", b"_")


def heard(*places: Path | str | bytes) -> list[str]:
    """Where a canary is: in a text, or in any file of a folder."""
    found = []
    for place in places:
        if isinstance(place, Path):
            found += [f"{path}: {word}" for path in sorted(place.rglob("*")) if path.is_file() for word in _in(path)]
        else:
            found += [f"{place[:200]!r}: {word}" for word in _said(place.encode() if isinstance(place, str) else place)]
    return found


def _in(path: Path) -> list[str]:
    return _said(path.read_bytes() + str(path).encode())


def _said(text: bytes) -> list[str]:
    return [name for name, secret in SECRETS.items() if any(form in text for form in spellings(secret))]


def test_the_search_itself_finds_every_spelling(tmp_path: Path) -> None:
    for name, secret in SECRETS.items():
        for form in (secret, quote(secret, safe=""), base64.b64encode(f"user:{secret}".encode()).decode()):
            (tmp_path / "log").write_text(f"some {form} text")
            assert heard(tmp_path) == [f"{tmp_path / 'log'}: {name}"]
            assert heard(f"some {form} text")


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackHub]:
    with LoopbackHub(token=TOKEN, org="demo") as made:
        yield made


def environment(hub: LoopbackHub, folder: Path) -> dict[str, str]:
    """Secrets, the loopback Hub, and folders that are looked at afterwards for all that is written anywhere."""
    folders = {"HF_HOME": folder / "hf", "TMPDIR": folder / "tmp", "XDG_CACHE_HOME": folder / "cache"}
    for path in folders.values():
        path.mkdir(exist_ok=True)
    return {**SECRETS, "HF_ENDPOINT": hub.endpoint, **{name: str(path) for name, path in folders.items()}}


@pytest.fixture(scope="module")
def finished(server: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace where everything has been made and nothing is pushed."""
    folder = tmp_path_factory.mktemp("canaries")
    llama().write(folder / "source")
    (folder / "card.toml").write_text('base_model = "tiny/tiny"\n')
    made = Workspace(folder, environment(server, folder))
    done = made.publisher("push", made.recipe(), "--run-dir", "run", "--dry-run", "--format", "json")
    assert heard(done.out, done.err) == []
    return made


@pytest.fixture
def workspace(finished: Workspace, server: LoopbackHub, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(finished.folder, tmp_path / "w")
    yield Workspace(tmp_path / "w", environment(server, tmp_path / "w"))
    server.faults.clear()
    server.repos.clear()
    server.log.clear()


VERBS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "mxfp4.yaml"),
    "validate": ("validate", "run/checkpoint", "--source", "source"),
    "quantize": ("quantize", "mxfp4.yaml", "--run-dir", "other"),
    "push": ("push", "mxfp4.yaml", "--run-dir", "run", "--yes"),
    "verify": ("verify", f"hf://{REPO}"),
    "validate the repository": ("validate", f"hf://{REPO}"),
    "access": ("access", "list", f"hf://{REPO}"),
    "grant": ("access", "grant", f"hf://{REPO}", "bob"),
    "doctor": ("doctor",),
    "jobs": ("jobs",),
}


@pytest.mark.slow
def test_runs_that_succeed_tell_nothing(workspace: Workspace, server: LoopbackHub) -> None:
    server.add_user("token-of-bob", "bob")
    told = []
    for name, verb in VERBS.items():
        done = workspace.publisher(*verb, *(() if name in ("jobs", "doctor") else ("--format", "json")), code=None)
        assert done.code == 0, (name, done.err)
        told += [done.out, done.err]
    done = workspace.publisher("eval", "compare", real("0.4.11", "source"), "--", real("0.4.11", "quantized"))
    assert json.loads((workspace.run / "push.json").read_text())["verified"] is True
    sent = [request.body for request in server.log] + [repr((r.path, r.query)).encode() for r in server.log]
    assert heard(workspace.folder, *told, done.out, done.err, *sent) == []


def repeated(**more: Any) -> dict[str, Any]:
    """A reply that tells the token in its body, its reason and its headers."""
    secret = f"Bearer {TOKEN} https://u:{quote(TOKEN, safe='')}@example.org/?X-Amz-Signature=ab&t={TOKEN}"
    told = {"X-Error-Message": secret, "X-Request-Id": TOKEN, "X-Token": TOKEN}
    return {"body": json.dumps({"error": secret}).encode(), "headers": told} | more


REASON = json.dumps({"errors": [{"message": TOKEN}]}).encode()
PAGE = {"Content-Type": "text/html"}
HTML = f"<html><title>{TOKEN}</title><body>{TOKEN}</body></html>".encode()
FAULTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "login refused": ("GET", "whoami", repeated(status=401)),
    "login misshapen": ("GET", "whoami", repeated(status=200, body=json.dumps([TOKEN]).encode())),
    "creation refused": ("POST", "repos/create", repeated(status=403)),
    "metadata refused": ("POST", "validate-yaml", {"status": 400, "body": REASON}),
    "batch refused": ("POST", "objects/batch", repeated(status=422)),
    "upload refused": ("PUT", "/_lfs/", repeated(status=403)),
    "upload dropped": ("PUT", "/_lfs/", {"drop": True}),
    "commit refused": ("POST", "/commit/", repeated(status=400)),
    "commit broken": ("POST", "/commit/", repeated(status=500)),
    "commit answered by a page": ("POST", "/commit/", {"status": 200, "body": HTML, "headers": PAGE}),
    "listing answered by a page": ("GET", "/tree/", {"status": 503, "body": HTML, "headers": PAGE}),
    "settings refused": ("PUT", "/settings", repeated(status=400)),
    "sent elsewhere": (
        "GET",
        "/resolve/",
        repeated(status=302, headers={"Location": f"http://127.0.0.1:9/{quote(TOKEN, safe='')}?token={TOKEN}"}),
    ),
    "quota": ("POST", "/commit/", repeated(status=402)),
}  # fmt: skip


@pytest.fixture
def here(workspace: Workspace, server: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The command line in this process, with the workspace's environment and no waits."""
    for name, value in workspace.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(Patience, "wait", lambda self, number, asked=None: None)
    monkeypatch.setattr(Pace, "sleep", lambda self, seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", type("Clock", (), {"sleep": staticmethod(lambda s: None)}))
    monkeypatch.chdir(workspace.folder)
    return workspace


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("fault", FAULTS)
def test_runs_that_fail_tell_nothing(
    here: Workspace, server: LoopbackHub, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    method, pattern, how = FAULTS[fault]
    server.fail(method, pattern, times=1000, **how)
    if fault == "sent elsewhere":
        server.fail("HEAD", pattern, times=1000, **how)
    code = call("push", "mxfp4.yaml", "--run-dir", "run", "--yes", "--format", "json")
    said = capfd.readouterr()
    assert code in (2, 3, 4), said.err
    assert "error" in json.loads(said.out.splitlines()[-1])
    assert "This is a bug" not in said.err
    state = json.loads((here.run / "state.json").read_text())
    assert (state["status"], state["exit_code"]) == ("failed", code)
    page = str(runs._status(job := local.job(here.run), runview.Watch().told(here.run))) + json.dumps(job.to_json())
    assert heard(here.folder, said.out, said.err, page) == []


@pytest.mark.parametrize("verb", ["verify", "access", "validate"])
@pytest.mark.parametrize(
    "how", [repeated(status=400), repeated(status=401), {"status": 503, "body": HTML}], ids=["400", "401", "page"]
)
def test_verbs_that_only_read_tell_nothing(
    here: Workspace, server: LoopbackHub, capfd: pytest.CaptureFixture[str], verb: str, how: dict[str, Any]
) -> None:
    server.seed_repo(REPO, {"config.json": b"{}"}, gated="manual")
    for method in ("GET", "HEAD", "POST"):
        server.fail(method, "^/(api|demo)/", times=1000, **how)
    arguments = {"access": ("access", "list", f"hf://{REPO}")}.get(verb, (verb, f"hf://{REPO}"))
    code = call(*arguments, "--format", "json")
    said = capfd.readouterr()
    assert code in (2, 3, 4), said.err
    assert heard(here.folder, said.out, said.err) == []


def test_a_bug_is_written_down_without_it(
    here: Workspace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object) -> None:
        raise ZeroDivisionError(f"while sending {TOKEN} and {SECRETS['WANDB_API_KEY']}")

    monkeypatch.setattr(HuggingFaceTarget, "create_private", broken)
    monkeypatch.setattr("tempfile.tempdir", here.env["TMPDIR"])
    assert call("push", "mxfp4.yaml", "--run-dir", "run", "--yes", "--format", "json") == 2
    said = capfd.readouterr()
    assert "This is a bug" in said.err
    assert list(Path(here.env["TMPDIR"]).glob("publisher-error-*")), "the traceback is kept"
    assert heard(here.folder, said.out, said.err) == []


@pytest.mark.parametrize("hung", [False, True])
def test_exceptions_of_the_transport_tell_nothing(
    tiny: Publication, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, hung: bool
) -> None:
    """The exception itself, its cause, its arguments and its traceback; of a dropped line and of a Hub that hangs."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("publisher.hub.client.TIMEOUT", 0.05)
    hub.add_user(TOKEN, "ada", orgs={"org": "admin"})
    hub.fail("PUT", "/_lfs/", times=1000, **({"status": 200, "trickle": 0.2} if hung else {"drop": True}))
    told: list[Any] = []
    target = HuggingFaceTarget("org/tiny-nvfp4", endpoint=hub.endpoint, sleep=lambda s: None)
    with pytest.raises(PublisherError) as caught:
        push(target, tiny, sleep=lambda s: None, emit=lambda kind, payload: told.append(payload))
    error = caught.value
    told += [error.message, error.hint, repr(error), str(error.__cause__), str(error.__dict__), repr(target)]
    assert heard(json.dumps(told, default=str)) == []
    outermost = traceback.TracebackException.from_exception(error, capture_locals=False, max_group_depth=1)
    assert outermost.__cause__ is None
    assert outermost.__suppress_context__ or outermost.__context__ is None
    assert heard("".join(outermost.format(chain=True))) == []


@pytest.mark.parametrize(
    ("name", "secret", "kind"),
    [
        ("train.py", "hf_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY", "a Hugging Face token in line 2"),
        ("notes.md", TOKEN, "a value of this environment's HF_TOKEN in line 2"),
    ],
)
def test_a_checkpoint_with_a_secret_is_refused_before_anything_is_sent(
    here: Workspace, server: LoopbackHub, capfd: pytest.CaptureFixture[str], name: str, secret: str, kind: str
) -> None:
    """One made elsewhere, with a file that nobody looked at; as an order, and as a dry run."""
    made = here.folder / "made"
    shutil.copytree(here.checkpoint, made)
    (made / name).write_text(f"first line\nlogin = {secret}\n")
    order = ("push", "--checkpoint", "made", "--source", "source", "--card", "card.toml", "--repo", REPO)
    for more in ((), ("--dry-run",)):
        code = call(*order, *more, "--run-dir", "adopted", "--yes", "--format", "json")
        said = capfd.readouterr()
        assert code == 1
        assert f"{name} holds {kind}" in said.err
        assert secret not in said.out + said.err
        assert server.requests("POST", "/repos/create|/commit/|/preupload/") == []


def test_a_card_with_a_secret_is_refused_too(
    here: Workspace, server: LoopbackHub, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a person says becomes part of the card, after the checkpoint was judged."""
    token = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzA1b"
    with (here.folder / "card.toml").open("a") as file:
        file.write(f'summary = "Clone it with {token}."\n')
    code = call("push", "mxfp4.yaml", "--run-dir", "run", "--yes", "--format", "json")
    said = capfd.readouterr()
    assert code == 1, said.err
    assert "README.md holds a GitHub token" in said.err
    assert heard(here.folder, said.out, said.err) == []
    assert token not in said.out + said.err + (here.run / "publication.json").read_text()
    assert server.requests("POST", "/repos/create|/commit/|/preupload/") == []


TELLS_ALL = """
import os, sys
print("starting with", os.environ["HF_TOKEN"], flush=True)
sys.stderr.write(f"Authorization: {os.environ['OPENAI_API_KEY']}\\n")
sys.exit("no answer for Bearer " + os.environ["OPENAI_API_KEY"] + " and " + os.environ["DATABASE_PASSWORD"])
"""


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_that_tells_its_environment_is_masked(workspace: Workspace, fails: bool) -> None:
    """The evaluation's harness, a program of others, prints what it was given and dies of it."""
    packages = install_stand_in(workspace.folder / "packages")
    if fails:
        (packages / "lm_eval/__main__.py").write_text(TELLS_ALL)
    with endpoint("base") as base, endpoint("ours") as ours:
        models = ("--baseline", f"BF16={base.address}", "--result", ours.address, "--task", "sums", "--format", "json")
        done = workspace.publisher("eval", "run", *models, code=None, PYTHONPATH=f"{ROOT}:{packages}")
    assert done.code == (5 if fails else 0), done.err
    assert ("no answer for" in done.err) == fails, "what it says is passed on"
    assert heard(workspace.folder, done.out, done.err) == []


# --- detached runs and the app ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_detached_run_and_the_app_tell_nothing(workspace: Workspace, server: LoopbackHub) -> None:
    server.fail("POST", "/commit/", times=1000, **repeated(status=400))
    run = workspace.folder / ".publisher/runs/pushed"
    env = {**workspace.env, "PYTHONPATH": str(ROOT)}
    local.start(["push", "mxfp4.yaml", "--yes"], run, cwd=workspace.folder, env=env)
    deadline = time.monotonic() + 120
    while local.job(run).status == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert local.job(run).status == "failed"
    pages = list(served(workspace, env))
    assert len(pages) == 3
    assert any(b"FP4 Publisher" in page for page in pages)
    assert heard(workspace.folder, *pages) == []


def served(workspace: Workspace, env: dict[str, str]) -> Iterator[bytes]:
    """The app's page, its configuration and its calls, as a browser gets them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = workspace.folder / "ui.log"
    with told.open("wb") as log:
        command = [sys.executable, "-m", "publisher", "ui", "--port", str(port)]
        app = subprocess.Popen(command, cwd=workspace.folder, env={**os.environ, **env}, stdout=log, stderr=log)
    try:
        for path in ("/", "/config", "/gradio_api/info"):
            yield fetched(f"http://127.0.0.1:{port}{path}")
    finally:
        app.terminate()
        app.wait(20)


def fetched(address: str) -> bytes:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=20) as reply:
            return bytes(reply.read())
        time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def test_this_repository_holds_no_secret() -> None:
    """What is tracked, tests included, has nothing that a scanner of secrets would stop a push for."""
    from publisher import secrets

    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    wrong = {
        name: found
        for name in names.split("\0")
        if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink()
        if (found := [leak for leak in secrets.find([(ROOT / name).read_bytes()], {}) if leak.certain])
    }
    assert {name: [leak.kind for leak in found] for name, found in wrong.items()} == {}
