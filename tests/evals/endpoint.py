"""An OpenAI-compatible endpoint on this machine that adds two numbers, and a stand-in for the harness that asks it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What `python -m lm_eval` does of what is needed here: asks every sum and writes results of the shape of 0.4.11.
STAND_IN = """
import argparse, json, pathlib, urllib.request
__version__ = "0.4.11"
parser = argparse.ArgumentParser()
for name in "model model_args tasks seed output_path num_fewshot limit gen_kwargs include_path".split():
    parser.add_argument("--" + name)
parser.add_argument("--log_samples", action="store_true")
given = parser.parse_args()
arguments = dict(pair.split("=", 1) for pair in given.model_args.split(","))
if given.tasks == "broken":
    raise SystemExit(3)
right = 0
for a in range(10):
    body = json.dumps({"model": arguments["model"], "prompt": f"{a} + 1 ="}).encode()
    with urllib.request.urlopen(urllib.request.Request(arguments["base_url"], body)) as answer:
        right += json.load(answer)["choices"][0]["text"].strip() == str(a + 1)
mean = right / 10
place = pathlib.Path(given.output_path) / "model"
place.mkdir(parents=True)
(place / "results_2026-05-04T03-02-01.1.json").write_text(json.dumps({
    "results": {given.tasks: {"acc,none": mean, "acc_stderr,none": (mean * (1 - mean) / 9) ** 0.5}},
    "versions": {given.tasks: 1},
    "n-shot": {given.tasks: 0},
    "n-samples": {given.tasks: {"original": 10, "effective": 10}},
    "config": {"model": given.model, "model_args": given.model_args, "fewshot_seed": int(given.seed)},
}))
"""


def install_stand_in(folder: Path) -> Path:
    """Put the stand-in where an interpreter with this folder on its path finds it; returns the folder."""
    package = folder / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    info = folder / "lm_eval-0.4.11.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.11\n")
    return folder


@dataclass
class Served:
    """Where it listens, which models it names, whom it fails, and what it was asked."""

    address: str
    models: list[str]
    wrong: set[int] = field(default_factory=set)
    prompts: list[str] = field(default_factory=list)


@contextmanager
def endpoint(*models: str, wrong: set[int] | None = None) -> Iterator[Served]:
    """Serve until the block ends; sums whose first number is in `wrong` come out wrong."""
    served = Served(address="", models=list(models), wrong=wrong or set())

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def _send(self, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._send({"object": "list", "data": [{"id": name} for name in served.models]})
            else:
                self.send_error(404)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
            prompts = [asked] if isinstance(asked, str) else asked
            served.prompts += prompts
            choices = [{"index": number, "text": answer(prompt)} for number, prompt in enumerate(prompts)]
            self._send({"choices": choices})

    def answer(prompt: str) -> str:
        match = re.search(r"(\d+) \+ (\d+) =$", prompt)
        if match is None:
            return "?"
        first, second = int(match.group(1)), int(match.group(2))
        return f" {first + second + (first in served.wrong)}"

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
