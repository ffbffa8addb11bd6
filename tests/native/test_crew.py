"""Several processes: the same bytes, one ledger, and a death that costs nothing but the shard at work.

The program is forked by `zygote`; the workers it starts are interpreters of their own, as everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from publisher.checkpoint.modules import fused_groups
from publisher.native import crew
from tests.native.zygote import Forked, Zygote

Write = Callable[..., Path]
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
Start = Callable[..., Forked]


def tensors(layers: int, size: int = 256) -> list[dict[str, torch.Tensor]]:
    """Layers of gate, up and down in two shards; gate and up of some fused groups lie in different ones."""
    generator = torch.Generator().manual_seed(9)
    found: dict[str, torch.Tensor] = {}
    for layer in range(layers):
        for name in ("gate_proj", "up_proj", "down_proj"):
            weight = torch.randn(size, size, generator=generator)
            found[f"model.layers.{layer}.mlp.{name}.weight"] = weight.bfloat16()
        found[f"model.layers.{layer}.norm.weight"] = torch.ones(size).bfloat16()
    return [{name: found[name] for name in list(found)[place::2]} for place in range(2)]


def names(shards: list[dict[str, torch.Tensor]]) -> list[str]:
    return sorted(name.removesuffix(".weight") for shard in shards for name in shard if "proj" in name)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def make(source: Write, job: Write, tmp_path: Path) -> Callable[..., Path]:
    """Job files over one source, each with a folder of its own."""
    shards = tensors(24)
    folder = source(tmp_path / "source", shards)
    options = {"groups": fused_groups(names(shards)), "shard_size": 200_000}

    def made(name: str, **changes: Any) -> Path:
        return job(tmp_path / name / "job.json", folder, names(shards), **{**options, **changes})

    return made


@pytest.fixture
def start(zygote: Zygote) -> Start:
    """A program at work on a job file."""
    return lambda path, **options: zygote.start([str(path)], **options)


def lines(process: Forked) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in iter(process.stdout.readline, ""))


def workers(pid: int) -> list[int]:
    """The worker processes a program started, as /proc tells them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"publisher.native.worker" in command:
            found.append(int(path.parent.name))
    return sorted(found)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_any_number_of_workers_gives_the_same_bytes_and_one_record(make: Callable[..., Path], run_program: Run) -> None:
    records = {}
    for count in (1, 3):
        path = make(f"w{count}", workers=count)
        code, events, errors = run_program(path)
        assert (code, errors) == (0, "")
        assert [event["kind"] for event in events if event["kind"] != "progress"] == ["start", "done"]
        assert events[0]["payload"]["workers"] == count
        last = [event["payload"] for event in events if event["kind"] == "progress"][-1]
        assert last["done"] == last["total"] > 0
        assert last["tensors"] == last["tensors_total"] == 96
        records[count] = json.loads((path.parent / "checkpoint.quantize.json").read_text())
        assert records[count]["workers"] == count
        assert not (path.parent / "staging").exists()
    one = digests(make("w1").parent / "checkpoint")
    assert len(one) > 15
    assert digests(make("w3").parent / "checkpoint") == one
    assert records[3]["weight_error"] == records[1]["weight_error"]
    assert records[3]["peak_memory"]["host"] > 2 * records[1]["peak_memory"]["host"]


def test_a_worker_that_is_killed_leaves_its_shards_to_the_others(
    make: Callable[..., Path], run_program: Run, start: Start
) -> None:
    assert run_program(make("plain"))[0] == 0
    path = make("killed", workers=2)
    with start(path) as process:
        wait_for(lambda: len(workers(process.pid)) == 2)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        events = list(lines(process))
    assert process.returncode == 0
    warning = next(event["payload"]["message"] for event in events if event["kind"] == "warning")
    assert "was killed (SIGKILL), most likely by the system for want of memory" in warning
    assert "go to the 1 others" in warning
    last = [event["payload"] for event in events if event["kind"] == "progress"][-1]
    assert (last["done"], last["tensors"]) == (last["total"], 96)
    assert digests(path.parent / "checkpoint") == digests(make("plain").parent / "checkpoint")


def test_when_all_workers_are_killed_the_run_says_so_and_can_go_on(
    make: Callable[..., Path], run_program: Run, start: Start
) -> None:
    path = make("killed", workers=2)
    with start(path) as process:
        wait_for(lambda: len(workers(process.pid)) == 2)
        for pid in workers(process.pid):
            os.kill(pid, signal.SIGKILL)
        events = list(lines(process))
    assert process.returncode == 5
    assert (events[-1]["kind"], events[-1]["stage"]) == ("error", "quantize")
    assert "was killed (SIGKILL)" in events[-1]["payload"]["message"]
    assert "--workers" in events[-1]["payload"]["hint"]
    assert not (path.parent / "checkpoint").exists()
    assert run_program(path)[0] == 0


def test_workers_do_not_outlive_the_program(make: Callable[..., Path], run_program: Run, start: Start) -> None:
    path = make("killed", workers=2)
    with start(path) as process:
        wait_for(lambda: len(workers(process.pid)) == 2)
        pids = workers(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in pids))
    assert run_program(path)[0] == 0


def test_a_polite_stop_ends_the_workers_and_keeps_what_is_finished(
    make: Callable[..., Path], run_program: Run, start: Start
) -> None:
    path = make("stopped", workers=2)
    with start(path) as process:
        events = lines(process)
        assert any(event["kind"] == "progress" for event in events)
        pids = workers(process.pid)
        process.send_signal(signal.SIGTERM)
        last = list(events)[-1]
    assert process.returncode == 6
    assert last["kind"] == "cancelled"
    assert all(gone(pid) for pid in pids)
    assert not (path.parent / "checkpoint").exists()
    finished = json.loads((path.parent / "staging/ledger.json").read_text())["shards"]
    code, events_after, _ = run_program(path)
    assert code == 0
    assert events_after[0]["payload"]["shards_finished"] == len(finished)


def test_what_a_worker_refuses_is_what_the_program_refuses(
    source: Write, job: Write, tmp_path: Path, run_program: Run
) -> None:
    shards = tensors(8)
    shards[1]["model.layers.3.mlp.up_proj.weight"][5, 7] = float("nan")
    path = job(tmp_path / "r/job.json", source(tmp_path / "s", shards), names(shards), workers=2, shard_size=200_000)
    code, events, _ = run_program(path)
    assert code == 2
    assert "model.layers.3.mlp.up_proj.weight holds 1 NaN" in events[-1]["payload"]["message"]
    assert "keep this module" in events[-1]["payload"]["hint"]
    assert not (tmp_path / "r/checkpoint").exists()


def test_a_full_disk_in_a_worker_is_the_program_s_error_and_can_be_gone_on_from(
    make: Callable[..., Path], run_program: Run
) -> None:
    path = make("full", workers=2)
    code, events, _ = run_program(path, file_size=150_000)
    assert code == 5
    assert "File too large" in events[-1]["payload"]["message"]
    assert "same command again" in events[-1]["payload"]["hint"]
    assert not (path.parent / "checkpoint").exists()
    assert run_program(path)[0] == 0


def shard_files(path: Path) -> dict[str, tuple[int, int]]:
    """Finished shards by name, with what changes when one is written again."""
    try:
        finished = json.loads((path.parent / "staging/ledger.json").read_text())["shards"]
        stats = {name: (path.parent / "staging/files" / name).stat() for name in finished}
    except OSError:
        return {}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def further(path: Path, count: int) -> bool:
    """More shards are finished than were, or all of them."""
    return len(shard_files(path)) > count or (path.parent / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "wanted"), [(1, 14), (2, 6)])
def test_twenty_kills_at_random_moments_do_not_change_the_result(
    source: Write, job: Write, tmp_path: Path, run_program: Run, start: Start, count: int, wanted: int
) -> None:
    """The whole process group dies without warning; what the ledger names is kept as it is, and the end is the same."""
    shards = tensors(60, 512)
    folder = source(tmp_path / "source", shards)
    options = {"groups": fused_groups(names(shards)), "shard_size": 1_500_000}
    plain = job(tmp_path / "plain/job.json", folder, names(shards), **options)
    assert run_program(plain)[0] == 0
    expected = digests(tmp_path / "plain/checkpoint")
    moments, kills, kept, runs = random.Random(count), 0, 0, 0
    while kills < wanted:
        runs += 1
        killed = job(tmp_path / f"killed{runs}/job.json", folder, names(shards), workers=count, **options)
        while not (killed.parent / "checkpoint").exists() and kills < wanted:
            before = shard_files(killed)
            with start(killed, new_session=True) as process:
                until = ("start", "shard", "progress")[kills % 3]  # workers take a while from one to the other
                if until == "shard":
                    wait_for(partial(further, killed, len(before)))
                else:
                    any(event["kind"] == until for event in lines(process))
                time.sleep(moments.uniform(0.0, 0.3))
                os.killpg(process.pid, signal.SIGKILL)
            kills += process.returncode == -signal.SIGKILL
            if not (killed.parent / "checkpoint").exists():
                after = shard_files(killed)
                assert {name: after[name] for name in before} == before
                kept += len(before)
        code, _, errors = run_program(killed)
        assert (code, errors) == (0, "")
        assert digests(killed.parent / "checkpoint") == expected
        assert sorted(path.name for path in killed.parent.iterdir()) == [
            "checkpoint",
            "checkpoint.quantize.json",
            "job.json",
        ]
    assert kept > 0


TALKER = """
import json, sys
out = sys.stdout.buffer
def tell(kind, **payload):
    out.write(json.dumps({"kind": kind, "payload": payload}).encode() + b"\\n"); out.flush()
out.write(b"a library says \\xff\\xfe\\nnull\\n12\\n[]\\n{}\\n{\\"kind\\": 3}\\n"); out.flush()
for line in sys.stdin:
    shard = json.loads(line)["shard"]
    if shard is None:
        break
    tell("shard", shard=shard, entry={"size": 1})
tell("end", host=1, device=None)
"""


class Ledger:
    lock = -1

    def __init__(self) -> None:
        self.adopted: list[str] = []

    def adopt(self, name: str, entry: Any) -> None:
        self.adopted.append(name)


def test_what_a_library_prints_among_the_events_is_passed_on_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines that are JSON and no event, and bytes that are no text."""
    real = subprocess.Popen
    monkeypatch.setattr(crew.subprocess, "Popen", lambda _, **options: real([sys.executable, "-c", TALKER], **options))
    ledger, began = Ledger(), time.monotonic()

    def stop() -> None:
        assert time.monotonic() - began < 20, "it hangs"

    found = crew.Crew(tmp_path / "job.json", ["cpu", "cpu"], cast(Any, ledger), stop, cast(Any, None))
    found.run(["a", "b", "c", "d", "e"])
    assert sorted(ledger.adopted) == ["a", "b", "c", "d", "e"]
    assert found.peaks.host == 2
    told = capfd.readouterr().err
    assert "a library says" in told
    assert told.count("null") == 2
