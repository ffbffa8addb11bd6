"""`publisher push`: the whole job on a tiny model, its gates, its faults, and going on after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors import safe_open

from publisher.cli import main
from publisher.hub.patience import Patience
from tests import warm
from tests.builders.tiny import llama, nvfp4
from tests.cli.conftest import ROOT, Workspace
from tests.hub.loopback import LoopbackHub


def test_everything_from_a_source_to_a_proven_repository(pushed: Workspace) -> None:
    record = json.loads((pushed.run / "push.json").read_text())
    assert record["verified"] is True
    assert (record["gate"], record["visibility"]) == ("manual", "public")
    assert (pushed.tree / "LICENSE").read_bytes() == (pushed.source / "LICENSE").read_bytes()
    assert "base_model: tiny/tiny" in (pushed.tree / "README.md").read_text()
    settings = json.loads((pushed.tree.parent / "settings.json").read_text())
    assert "manual" in settings.values()
    with safe_open(next(pushed.tree.glob("*.safetensors")), "np") as file:
        assert file.get_slice("model.layers.0.mlp.up_proj.weight").get_dtype() == "U8"
        assert file.get_slice("model.layers.0.self_attn.q_proj.weight").get_dtype() == "BF16"


def test_the_result_validates_and_verifies(pushed: Workspace) -> None:
    report = pushed.publisher("validate", str(pushed.tree), "--source", "source", "--format", "json").json
    assert report["publishable"] is True
    assert report["findings"] == []
    found = pushed.publisher("verify", "folder:out/demo/tiny-fp4", "--format", "json").json
    assert found["verified"] is True


def test_a_second_push_sends_nothing_and_redoes_nothing(pushed: Workspace) -> None:
    before = {path: path.stat().st_mtime_ns for path in pushed.checkpoint.glob("*.safetensors")}
    record = pushed.push("mxfp4.yaml").json
    assert record["sent"] == []
    assert record["verified"] is True
    assert before == {path: path.stat().st_mtime_ns for path in pushed.checkpoint.glob("*.safetensors")}


def test_an_open_gate_is_what_the_user_asked_for(workspace: Workspace) -> None:
    record = workspace.push(workspace.recipe(), "--gate", "off", "--private").json
    assert (record["gate"], record["visibility"]) == ("off", "private")


def test_a_dry_run_publishes_nothing_and_says_what_it_would(workspace: Workspace) -> None:
    intended = workspace.push(workspace.recipe(), "--dry-run").json
    assert intended["current"] is None
    sent = [path for group in intended["groups"].values() for path in group]
    assert {"LICENSE", "README.md", "publish.json", "config.json"} <= set(sent)
    assert not workspace.tree.exists()


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (lambda w: (w.source / "model-00002-of-00002.safetensors").unlink(), 2, "model-00002-of-00002.safetensors"),
        (lambda w: _cut(w.source / "model-00002-of-00002.safetensors"), 2, "model-00002-of-00002.safetensors"),
        (lambda w: (w.source / "config.json").write_text("{"), 2, "config.json"),
        (lambda w: shutil.rmtree(w.source), 2, "source does not exist"),
        (lambda w: (w.folder / "card.toml").unlink(), 2, "card.toml"),
        (lambda w: (w.folder / "card.toml").write_text("basemodel = 1\n"), 2, "basemodel"),
    ],
)
def test_a_bad_source_is_one_sentence_and_leaves_nothing(workspace: Workspace, damage, code: int, says: str) -> None:
    recipe = workspace.recipe()
    damage(workspace)
    done = workspace.push(recipe, code=code)
    assert says in done.err
    assert not workspace.checkpoint.exists()
    assert not workspace.tree.exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_a_damaged_result_is_not_published_until_it_is_waived(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    workspace.publisher("quantize", recipe, "--run-dir", "run")
    (workspace.checkpoint / "config.json").write_text(
        (workspace.checkpoint / "config.json").read_text().replace('"vocab_size": 32', '"vocab_size": 33')
    )
    done = workspace.push(recipe, code=1)
    assert "CF25" in done.err
    assert not workspace.tree.exists()
    report = json.loads((workspace.run / "report.json").read_text())
    assert report["publishable"] is False
    done = workspace.push(recipe, "--ignore", "CF25=the vocabulary was padded for the test")
    manifest = json.loads((workspace.tree / "publish.json").read_text())
    assert "the vocabulary was padded for the test" in json.dumps(manifest)


def test_a_waiver_without_a_reason_is_refused(workspace: Workspace) -> None:
    assert "gives no reason" in workspace.push(workspace.recipe(), "--ignore", "CN06", code=2).err


def test_an_edited_licence_is_not_published(workspace: Workspace) -> None:
    llama().write(workspace.folder / "source")
    nvfp4(llama(), activations=False).write(workspace.folder / "made")
    (workspace.folder / "made/LICENSE").write_text("mine now")
    done = workspace.publisher(
        "push", "--checkpoint", "made", "--source", "source", "--card", "card.toml", "--repo", "demo/made",
        "--to", "folder:out", "--run-dir", "run", code=1,
    )  # fmt: skip
    assert "LICENSE" in done.err
    assert not (workspace.folder / "out/demo/made/tree").exists()


def test_a_checkpoint_made_elsewhere_goes_through_the_same_gates(workspace: Workspace) -> None:
    made = nvfp4(llama(), activations=False).write(workspace.folder / "made")
    (made / "LICENSE").unlink()
    before = {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}
    record = workspace.publisher(
        "push", "--checkpoint", "made", "--source", "source", "--card", "card.toml", "--repo", "demo/made",
        "--to", "folder:out", "--run-dir", "run", "--format", "json",
    ).json  # fmt: skip
    assert record["verified"] is True
    tree = workspace.folder / "out/demo/made/tree"
    assert (tree / "LICENSE").read_bytes() == (workspace.source / "LICENSE").read_bytes()
    assert before == {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}, "the original is left"


@pytest.mark.parametrize(
    "arguments",
    [
        ["push"],
        ["push", "r.yaml", "--checkpoint", "x", "--source", "y"],
        ["push", "--checkpoint", "x"],
        ["push", "mxfp4.yaml", "--to", "ftp:there"],
        ["push", "mxfp4.yaml", "--gate", "sometimes"],
        ["push", "mxfp4.yaml", "--repo", "no slash", "--to", "folder:out"],
        ["push", "mxfp4.yaml", "--to", "folder:out", "--tag", "v1"],
        ["push", "mxfp4.yaml", "--to", "folder:out", "--revision", "next"],
        ["push", "mxfp4.yaml", "--to", "folder:out", "--create-pr"],
        ["push", "mxfp4.yaml", "--tag", "v1", "--no-tag"],
        ["push", "mxfp4.yaml", "--create-pr", "--revision", "next"],
        ["push", "mxfp4.yaml", "--create-pr", "--tag", "v1"],
        ["push", "mxfp4.yaml", "--create-pr", "--private"],
        ["push", "mxfp4.yaml", "--revision", "refs/pr/1"],
        ["push", "mxfp4.yaml", "--tag", "deadbeef"],
    ],
)
def test_usage_errors(workspace: Workspace, arguments: list[str]) -> None:
    workspace.recipe()
    workspace.publisher(*arguments, code=2)
    assert not workspace.checkpoint.exists(), "refused before hours of work"


def test_a_missing_token_is_an_access_error(workspace: Workspace) -> None:
    with LoopbackHub() as hub:
        done = workspace.publisher(
            "push", workspace.recipe(), "--to", "hf", "--run-dir", "run", "--yes", code=3, HF_ENDPOINT=hub.endpoint
        )
    assert "token" in done.err
    assert "hf auth login" in done.err
    assert not workspace.checkpoint.exists(), "refused before hours of work"


def test_a_login_that_may_only_read_is_refused_before_the_work(workspace: Workspace) -> None:
    with LoopbackHub() as hub:
        reader = hub.add_user("hf_loopbackReadToken00", "bob", role="read")
        done = workspace.publisher(
            "push", workspace.recipe(), "--repo", "bob/tiny-fp4", "--run-dir", "run", "--yes", code=3,
            HF_ENDPOINT=hub.endpoint, HF_TOKEN=reader,
        )  # fmt: skip
    assert "may only read" in done.err
    assert not workspace.checkpoint.exists()


def test_a_hub_that_is_down_at_the_start_stops_only_the_push(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, where the client and the target need not wait between their attempts."""
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setattr(sys, "executable", warm.python())
    monkeypatch.setattr(Patience, "wait", lambda self, number, asked=None: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time", type("Clock", (), {"sleep": staticmethod(lambda s: None)}))
    with LoopbackHub() as hub:
        hub.fail("GET", "/api/whoami", times=1000, status=500)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        with pytest.raises(SystemExit) as ended:
            main(["push", workspace.recipe(), "--repo", f"{hub.user}/tiny-fp4", "--run-dir", "run", "--yes"])
        assert len(hub.requests("GET", "/api/whoami")) > 1
    assert ended.value.code == 4
    assert "not known whether this login may publish" in capfd.readouterr().err
    assert workspace.checkpoint.exists()


def test_push_to_the_hub_with_the_real_client_and_no_token_anywhere(workspace: Workspace) -> None:
    with LoopbackHub() as hub:
        done = workspace.publisher(
            "push", workspace.recipe(), "--repo", f"{hub.user}/tiny-fp4", "--run-dir", "run", "--format", "json",
            fresh=True, HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token,
        )  # fmt: skip
        record = done.json
        assert record["verified"] is True
        repo = hub.repos[f"{hub.user}/tiny-fp4"]
        assert (repo.private, repo.gated) == (False, "manual")
        assert not hub.was_open(f"{hub.user}/tiny-fp4")
        found = workspace.publisher(
            "verify", f"hf://{hub.user}/tiny-fp4", "--format", "json", HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token
        ).json
        assert found["verified"] is True
        report = workspace.publisher(
            "validate", f"hf://{hub.user}/tiny-fp4", "--format", "json", HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token
        ).json
        assert report["publishable"] is True
    texts = [path.read_text(errors="replace") for path in workspace.run.rglob("*") if path.is_file()]
    assert not any(hub.token in text for text in [*texts, done.out, done.err])


class OnHub:
    """A workspace that publishes to a loopback Hub."""

    def __init__(self, workspace: Workspace, hub: LoopbackHub) -> None:
        self.workspace, self.hub = workspace, hub
        self.repo = f"{hub.user}/tiny-fp4"
        self.recipe = workspace.recipe()

    def push(self, *arguments: str, code: int = 0, form: str = "json"):
        return self.workspace.publisher(
            "push", self.recipe, "--repo", self.repo, "--run-dir", "run", "--format", form, *arguments, code=code,
            HF_ENDPOINT=self.hub.endpoint, HF_TOKEN=self.hub.token,
        )  # fmt: skip

    def edit_card(self, text: str) -> None:
        card = self.workspace.folder / "card.toml"
        card.write_text(f'{card.read_text()}summary = "{text}"\n')


def test_updates_are_proposed_branched_tagged_and_told(workspace: Workspace) -> None:
    with LoopbackHub() as hub:
        mine = OnHub(workspace, hub)
        first = mine.push("--tag", "v1").json
        repo = hub.repos[mine.repo]
        assert (repo.tags, first["tag"]) == ({"v1": repo.head}, "v1")

        mine.edit_card("Second edition.")
        before, files = repo.head, dict(repo.files)
        told = mine.push("--dry-run", form="human").out
        assert "changed README.md" in told
        assert "the card changes" in told
        assert f"POST /api/models/{mine.repo}/discussions — open a pull request" in told
        assert f"POST /api/models/{mine.repo}/discussions/N/merge" in told
        assert repo.head == before
        assert repo.pulls == []

        proposed = mine.push("--create-pr", "--no-tag", form="human").out
        assert f"{hub.endpoint}/{mine.repo}/discussions/1" in proposed
        assert f"publisher push {mine.recipe} --repo {mine.repo} --run-dir run --format human --no-tag" in proposed
        assert (repo.head, repo.files, repo.pulls[0].status) == (before, files, "draft")

        for place, readme in ((f"hf://{mine.repo}@refs/pr/1", True), (f"hf://{mine.repo}", False)):
            seen = workspace.publisher(
                "verify", place, "--format", "json", HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token
            ).json
            assert seen["verified"] is True
            assert (seen["root_digest"] != first["root_digest"]) is readme

        branched = mine.push("--revision", "next", "--no-tag").json
        assert (branched["revision"], branched["tag"], repo.head) == ("next", None, before)
        assert b"Second edition" in repo.sides["next"][-1][2]["README.md"].data

        merged = mine.push().json
        assert (merged["released"], repo.pulls[0].status, len(repo.pulls)) == (True, "merged", 1)
        assert b"Second edition" in repo.files["README.md"].data
        assert repo.tags[f"publisher-{merged['root_digest'][:12]}"] == repo.head
        assert not hub.was_open(mine.repo)


def test_private_storage_that_is_too_small(workspace: Workspace) -> None:
    with LoopbackHub() as hub:
        hub.private_quota = 100
        mine = OnHub(workspace, hub)
        refused = mine.push("--no-public-staging", code=3)
        assert "--no-public-staging" in refused.err
        repo = hub.repos[mine.repo]
        assert (repo.private, list(repo.files)) == (True, [".gitattributes"])
        done = mine.push()
        assert "behind a manual gate" in done.err
        assert done.json["route"] == "draft"
        assert (repo.private, repo.gated) == (False, "manual")
        shown = [item.trees[mine.repo] for item in hub.log if item.state.get(mine.repo, (True,))[0] is False]
        assert {len(files) for files in shown} == {1, len(repo.files)}, "public empty, then public whole, nothing else"
        assert not hub.was_open(mine.repo)


def test_a_terminal_is_asked_before_the_work_and_before_an_update(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    assert "Nothing was started" in on_terminal(workspace, recipe, "n\n", code=2)
    assert not workspace.checkpoint.exists()
    on_terminal(workspace, recipe, "y\ny\n")
    card = workspace.folder / "card.toml"
    card.write_text(f'{card.read_text()}summary = "Second edition."\n')
    before = (workspace.tree / "README.md").read_bytes()
    said = on_terminal(workspace, recipe, "y\nn\n", code=2)
    assert "changed README.md" in said
    assert "Publish these changes?" in said
    assert (workspace.tree / "README.md").read_bytes() == before
    on_terminal(workspace, recipe, "y\ny\n")
    assert b"Second edition" in (workspace.tree / "README.md").read_bytes()


def test_what_changes_between_the_question_and_the_push_stops_it(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    on_terminal(workspace, recipe, "y\n")
    card = workspace.folder / "card.toml"
    card.write_text(f'{card.read_text()}summary = "Second edition."\n')
    before = (workspace.tree / "README.md").read_bytes()
    said = on_terminal(
        workspace, recipe, "y\n", code=4, meanwhile=lambda: (workspace.tree / "mine.txt").write_text("x")
    )
    assert "was changed after you were asked: mine.txt is not in the manifest" in " ".join(said.split())
    assert ((workspace.tree / "README.md").read_bytes(), (workspace.tree / "mine.txt").read_text()) == (before, "x")
    assert "removed mine.txt" in on_terminal(workspace, recipe, "y\ny\n")


def on_terminal(
    workspace: Workspace, recipe: str, answers: str, *, code: int = 0, meanwhile: Callable[[], object] | None = None
) -> str:
    """What `push` says to somebody who types these answers; to its last question they say yes `meanwhile` is done."""
    ours, theirs = pty.openpty()
    os.write(ours, answers.encode())
    process = subprocess.Popen(
        [warm.python(), "-m", "publisher", "push", recipe, "--to", "folder:out", "--run-dir", "run"],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    if meanwhile is not None:
        while b"Publish these changes?" not in said and (more := process.stdout.read1(1 << 16)):
            said += more
        meanwhile()
        os.write(ours, b"y\n")
    said += process.communicate(timeout=120)[0]
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code, said.decode()
    return said.decode()


def test_stopping_is_resumable_and_ends_with_six(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "publisher", "push", recipe, "--to", "folder:out", "--run-dir", "run"],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_until((workspace.run / "job.json").exists, "job.json")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 6, err
    assert "Run the same command again" in err
    state = json.loads((workspace.run / "state.json").read_text())
    assert state["status"] == "interrupted"
    assert workspace.push(recipe).json["verified"] is True


@pytest.mark.parametrize(
    "sign",
    [
        '"stage": "plan", "kind": "done"',
        '"engine native"',
        '"6 modules to mxfp4',
        '"kind": "done", "payload": {"message": "run/checkpoint"}',
        '"checking the checkpoint',
        '"taking the digest',
        '"step": "weights"',
        '"step": "last commit"',
    ],
)
def test_a_kill_at_any_moment_loses_nothing(workspace: Workspace, pushed: Workspace, sign: str) -> None:
    recipe = workspace.recipe()
    process = subprocess.Popen(
        [warm.python(), "-m", "publisher", "push", recipe, "--to", "folder:out", "--run-dir", "run"],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    told = workspace.run / "events.jsonl"
    _wait_until(lambda: told.exists() and sign in told.read_text(), sign)
    with contextlib.suppress(ProcessLookupError):  # a busy machine may look after the last step
        os.kill(json.loads((workspace.run / "state.json").read_text())["pid"], signal.SIGKILL)
    assert process.wait(60) in (-signal.SIGKILL, 0)
    assert workspace.push(recipe).json["verified"] is True
    weights = [path.read_bytes() for path in sorted(workspace.tree.glob("*.safetensors"))]
    assert weights == [path.read_bytes() for path in sorted(pushed.tree.glob("*.safetensors"))]


def _wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, f"{what} never appeared"
        time.sleep(0.005)


def test_a_full_disk_is_a_sentence_and_the_next_run_completes(workspace: Workspace) -> None:
    """RLIMIT_FSIZE makes any longer file fail as a full disk or quota would: no file may grow past 20 kB."""
    recipe = workspace.recipe()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "from publisher.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "push", recipe, "--to", "folder:out", "--run-dir", "run"],
        cwd=workspace.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (2, 5), done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert not workspace.checkpoint.exists()
    assert not workspace.tree.exists()
    assert workspace.push(recipe).json["verified"] is True


def test_a_file_laid_into_the_run_is_not_published(workspace: Workspace) -> None:
    recipe = workspace.recipe()
    workspace.publisher("quantize", recipe, "--run-dir", "run")
    (workspace.checkpoint / "extra.pkl").write_bytes(b"not ours")
    done = workspace.push(recipe, code=2)
    assert "extra.pkl" in done.err
    assert not workspace.tree.exists()
    (workspace.checkpoint / "extra.pkl").unlink()
    assert workspace.push(recipe).json["verified"] is True


def test_an_edit_of_a_published_tree_is_named_without_the_source(pushed: Workspace, workspace: Workspace) -> None:
    shutil.copytree(pushed.tree, workspace.folder / "tree")
    (workspace.folder / "tree/LICENSE").write_text("mine")
    report = workspace.publisher("validate", "tree", "--format", "json", code=1).json
    assert ("LC14", "LICENSE") in {(f["code"], f["where"]["file"]) for f in report["findings"]}
