"""Start lm-evaluation-harness for a baseline and a result alike, so that what it writes can be compared.

Both get the same arguments but for the model: an OpenAI-compatible endpoint (`http://host:port/v1`, its model's name
asked of it or given after `#`), a local model or a Hub id. The harness runs in an interpreter that is named, because
its dependencies are many; its output goes to standard error, secrets masked. A model and seed whose results are there
is not run again.
Refused: an interpreter without the harness, an endpoint that does not say which model it serves, a harness that fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher import jsonio
from publisher.errors import EngineError, HubError, InterruptedRun, PublisherError
from publisher.evals.results import mapping
from publisher.secrets import mask

TIMEOUT = 20.0  # seconds for an endpoint to name its models
MAX_ANSWER = 1 << 20
MAX_LINE = 1 << 16
GRACE = 20.0  # seconds between a request to stop and the end by force
FOUND = "import lm_eval, importlib.metadata as m; print(m.version('lm_eval'))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to measure.

    Args:
        label: its column, and the name of its folder.
        place: an endpoint's address, a folder or a Hub id.
    """

    label: str
    place: str

    @property
    def served(self) -> bool:
        """Whether it answers over HTTP."""
        return self.place.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to measure and how; the same for every subject.

    Args:
        tasks: names of the harness's tasks.
        output: the folder for results.
        python: the interpreter that has the harness.
        seeds: one run each.
        shots: examples in the prompt; None leaves the task's own.
        limit: how many documents; None is all of them.
        chat: whether prompts go through the chat template, and to the chat endpoint.
        tokenizer: folder or Hub id; an endpoint needs one for log-likelihoods.
        generation: arguments of generation as the harness takes them, empty for the task's own.
        tasks_folder: a folder of further tasks.
        parallel: requests to an endpoint at a time.
    """

    tasks: tuple[str, ...]
    output: Path
    python: str = sys.executable
    seeds: tuple[int, ...] = (1234,)
    shots: int | None = None
    limit: int | None = None
    chat: bool = False
    tokenizer: str = ""
    generation: str = ""
    tasks_folder: Path | None = None
    parallel: int = 1


def run(subjects: Sequence[Subject], request: Request, tell: Callable[[str], None]) -> dict[str, list[str]]:
    """Measure every subject with every seed.

    Args:
        subjects: baselines and result.
        request: the protocol.
        tell: takes a sentence before each run.

    Returns:
        The folders of results, as LABEL=PATH for `compare`, by label.

    Raises:
        EngineError: the harness is missing or failed.
        HubError: an endpoint does not answer.
        InterruptedRun: stopped; what is finished is kept.
    """
    version = require_harness(request.python)
    commands = {(s.label, seed): command(s, request, seed) for s in subjects for seed in request.seeds}
    found: dict[str, list[str]] = {}
    for (label, seed), arguments in commands.items():
        folder = place(request, arguments, label, seed)
        if any(folder.rglob("results_*.json")):
            tell(f"{label}, seed {seed}: measured already, in {folder}")
        else:
            tell(f"{label}, seed {seed}: lm-evaluation-harness {version} on {', '.join(request.tasks)}")
            _start([*arguments, "--output_path", str(folder)], label)
        if not any(folder.rglob("results_*.json")):
            raise EngineError(
                f"The harness ended without results for {label} in {folder}.", hint="Read what it printed."
            )
        found.setdefault(label, []).append(f"{label}={folder}")
    return found


def require_harness(python: str) -> str:
    """The version of the harness an interpreter has.

    Raises:
        EngineError: it has none.
    """
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([python, "-c", FOUND], capture_output=True, text=True, timeout=300)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split()[-1]
    raise EngineError(
        f"{python} has no lm-evaluation-harness.",
        hint="Install it in an environment of its own, `pip install 'lm-eval[api]'`, and name that with --python.",
    )


def command(subject: Subject, request: Request, seed: int) -> list[str]:
    """The harness's command line, but for where it writes.

    Raises:
        PublisherError: a name that its `key=value,key=value` cannot hold.
        HubError: an endpoint that does not say which model it serves.
    """
    model, arguments = _served(subject, request) if subject.served else ("hf", {"pretrained": subject.place})
    for name, value in arguments.items():
        if "," in value:
            raise PublisherError(f"The harness cannot take a comma in {name}: {value!r:.200}.", hint="Rename it.")
    optional = {
        "--num_fewshot": None if request.shots is None else str(request.shots),
        "--limit": None if request.limit is None else str(request.limit),
        "--gen_kwargs": request.generation or None,
        "--include_path": None if request.tasks_folder is None else str(request.tasks_folder),
    }
    found = [request.python, "-m", "lm_eval", "--model", model]
    found += ["--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())]
    found += ["--tasks", ",".join(request.tasks), "--seed", str(seed), "--log_samples"]
    found += [part for name, value in optional.items() if value is not None for part in (name, value)]
    return [*found, "--apply_chat_template"] if request.chat else found


def place(request: Request, arguments: Sequence[str], label: str, seed: int) -> Path:
    """Where a run's results lie: a folder of its own for every protocol, so that none is taken for another."""
    protocol = hashlib.sha256("\0".join(arguments[1:]).encode()).hexdigest()[:12]
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in label).strip(".") or "model"
    return request.output / f"{name}-seed{seed}-{protocol}"


def _served(subject: Subject, request: Request) -> tuple[str, dict[str, str]]:
    address, _, name = subject.place.partition("#")
    address = address.rstrip("/")
    arguments = {"model": name or _only_model(address)}
    arguments["base_url"] = f"{address}/chat/completions" if request.chat else f"{address}/completions"
    arguments["num_concurrent"] = str(request.parallel)
    if request.tokenizer:
        arguments |= {"tokenizer": request.tokenizer, "tokenizer_backend": "huggingface"}
    else:
        arguments["tokenizer_backend"] = "none"
    return ("local-chat-completions" if request.chat else "local-completions"), arguments


def _only_model(address: str) -> str:
    """The name of the one model an endpoint serves."""
    hint = f"Give its name: {address}#NAME."
    try:
        with urllib.request.urlopen(f"{address}/models", timeout=TIMEOUT) as answer:
            body = mapping(jsonio.loads_json(answer.read(MAX_ANSWER), f"{address}/models"))
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise HubError(f"{address} does not name its models: {str(error)[:200]}.", hint=hint) from None
    listed = body.get("data")
    names = [mapping(entry).get("id") for entry in listed] if isinstance(listed, list) else []
    named = [name for name in names if isinstance(name, str) and name]
    if len(named) != 1:
        raise PublisherError(f"{address} serves {len(named)} models: {', '.join(named[:5])}.", hint=hint)
    return named[0]


def _start(arguments: Sequence[str], label: str) -> None:
    """Run the harness to its end; its output is for people and goes to standard error, without what is secret."""
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    relay = threading.Thread(target=_relay, args=(process,), daemon=True)
    relay.start()
    try:
        code = process.wait()
        relay.join(GRACE)  # a worker that it left behind may hold the pipe open
    except KeyboardInterrupt:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise InterruptedRun(f"Stopped while {label} was measured.", hint="The same command goes on.") from None
    if code:
        raise EngineError(f"The harness ended with {code} for {label}.", hint="Read what it printed above.")


def _relay(process: subprocess.Popen[bytes]) -> None:
    """Pass on what a process prints, by lines and states of progress bars, with secrets masked."""
    stream = process.stdout
    kept = b""
    while stream is not None and (piece := os.read(stream.fileno(), MAX_LINE)):
        kept += piece
        end = max(kept.rfind(b"\n"), kept.rfind(b"\r")) + 1
        end = len(kept) if not end and len(kept) >= MAX_LINE else end
        _say(kept[:end])
        kept = kept[end:]
    _say(kept)


def _say(told: bytes) -> None:
    sys.stderr.write(mask(told.decode("utf-8", "replace")))
    sys.stderr.flush()
