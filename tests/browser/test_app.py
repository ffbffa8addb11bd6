"""The app in a real browser, from an empty form to a verified repository, and as a Space serves it.

The server is a process of its own on 127.0.0.1, the browser is Chromium, the models are tiny, and one is hostile: a
name in it is markup. No script of a stranger runs, nothing comes from elsewhere, no page raises an error. What the
server starts is forked (`tests/warm.py`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import warm
from tests.builders import tiny
from tests.hub.loopback import LoopbackHub

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-quic"),
)
HOSTILE = "model.layers.0.<img src=x onerror=window.pwned=1>.${pwned=2}{{pwned}}_proj"
CARD = """---
license: apache-2.0
---
# Card
<img src="http://127.0.0.1:9/pixel.png" onerror="window.pwned=3"> ![pixel](http://127.0.0.1:9/pixel2.png)
<script>window.pwned=4</script>
[link](javascript:window.pwned=5)
"""
FRAME = ("https://fonts.googleapis.com/", "https://huggingface.co/api/spaces/")  # gradio's own header of a Space
DONE = "#status .run[data-status=done]"


@dataclass
class Witness:
    """What a page must not do."""

    page: Page
    port: int
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._saw(request.url))

    def _saw(self, url: str) -> None:
        if not url.startswith((f"http://127.0.0.1:{self.port}/", "data:", "blob:")):
            self.elsewhere.append(url)

    def swear(self, *, besides: tuple[str, ...] = ()) -> None:
        assert self.errors == []
        assert [url for url in self.elsewhere if not url.startswith(besides)] == []
        assert self.page.evaluate("window.pwned") is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine's PATH; `.ci/run` installs it")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield found
        found.close()


@contextmanager
def serving(command: list[str], cwd: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The app in a process of its own, answering."""
    log = cwd / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=cwd, env=dict(environment), stdout=file, stderr=file)
    port = environment["GRADIO_SERVER_PORT"]
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield
        told = log.read_text()  # gradio's reloader misses a package that only the Hub's own images have
        assert told.count("Traceback") == told.count("in watchfn_spaces"), told
    finally:
        process.terminate()
        process.wait(20)


def environment(**more: str) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    return {**os.environ, "PYTHONPATH": str(ROOT), **server, **more}


def opened(browser: Browser, env: Mapping[str, str], **context: Any) -> Witness:
    settings = {"viewport": {"width": 1280, "height": 900}, **context}
    page = browser.new_context(**settings).new_page()
    port = int(env["GRADIO_SERVER_PORT"])
    witness = Witness(page, port)
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("#make-plan")
    return witness


def fill(page: Page, field_id: str, value: str) -> None:
    page.locator(f"#{field_id} textarea, #{field_id} input").first.fill(value)


def source(folder: Path, *, hostile: bool = False) -> Path:
    """A tiny model of the Llama shape; a hostile one has one more linear layer, whose name is markup."""
    model = tiny.llama()
    if hostile:
        model.tensors[f"{HOSTILE}.weight"] = model.tensors["model.layers.0.mlp.up_proj.weight"]
    model.files |= {"LICENSE": tiny.LICENCE, "README.md": tiny.SOURCE_CARD.encode()}
    return model.write(folder)


def publisher(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [warm.python(), "-m", "publisher", *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


def test_from_the_form_to_a_verified_repository(browser: Browser, tmp_path: Path) -> None:
    source(tmp_path / "model")
    source(tmp_path / "hostile", hostile=True)
    env = environment()
    command = [warm.python(), "-m", "publisher", "ui", "--port", env["GRADIO_SERVER_PORT"]]
    with serving(command, tmp_path, env):
        witness = opened(browser, env)
        page = witness.page

        # an incomplete form is answered with what is missing
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#plan [role=alert]")).to_contain_text("The form lacks a source and a repository name")
        expect(page.locator("#start")).to_be_disabled()

        # the plan says what will happen, shows the stranger's name as text, and gives the command
        fill(page, "source", "hostile")
        fill(page, "base-model", "org/Tiny")
        fill(page, "repo", "me/Tiny-MXFP4")
        page.get_by_label("MXFP4").check()
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#plan table.plan")).to_be_visible(timeout=60_000)
        expect(page.locator("#plan")).to_contain_text("<img src=x onerror=window.pwned=1>")
        expect(page.locator("#plan")).to_contain_text("${pwned=2}{{pwned}}_proj")
        expect(page.locator("#command")).to_contain_text("publisher push recipe.yaml --to folder:published")

        expect(page.locator("#start")).to_be_disabled()  # no exclude list could spell that name

        # a changed form cannot start an old plan
        fill(page, "source", "model")
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#start")).to_be_enabled(timeout=60_000)
        fill(page, "keep", "*.layers.0.mlp.*")
        expect(page.locator("#start")).to_be_disabled()
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#start")).to_be_enabled(timeout=60_000)

        # it runs detached: a reloaded tab and another tab see the same run
        page.locator("#start").click()
        expect(page.locator("#status .run")).to_be_visible(timeout=60_000)
        page.reload()
        expect(page.locator("#status .run")).to_be_visible(timeout=60_000)
        expect(page.locator(DONE)).to_be_visible(timeout=120_000)
        for stage in ("plan", "quantize", "validate", "card", "manifest", "push"):
            expect(page.locator(f"#status li[data-stage={stage}]")).to_have_class(re.compile("done"))
        expect(page.locator("#findings")).to_contain_text("Publishable", timeout=20_000)
        expect(page.locator("#findings")).to_contain_text("not the same as passed")

        # card, licence and record
        page.get_by_role("tab", name="Model card").click()
        expect(page.locator("#card")).to_contain_text("Tiny-MXFP4", timeout=20_000)
        page.get_by_role("tab", name="Publication").click()
        expect(page.locator("#record")).to_contain_text("read back and equal to the manifest")
        expect(page.locator("#record")).to_contain_text("LICENSE")
        verified = publisher(tmp_path, "verify", "folder:published/me/Tiny-MXFP4", "--format", "json")
        document = json.loads(verified.stdout.splitlines()[-1])
        assert document["verified"] is True

        # the page of what is published says the same, and what a changed file is
        page.get_by_role("tab", name="Published").click()
        fill(page, "published-place", "folder:published/me/Tiny-MXFP4")
        page.locator("#verify").click()
        expect(page.locator("#published-result")).to_contain_text("Equals its manifest", timeout=60_000)
        stored = tmp_path / "published/me/Tiny-MXFP4/tree/LICENSE"
        stored.write_text("Anything goes.")
        page.locator("#verify").click()
        expect(page.locator("#published-result .notice.error").first).to_be_visible(timeout=60_000)
        expect(page.locator("#published-result table")).to_contain_text("LICENSE")
        page.locator("#lint").click()
        expect(page.locator("#published-result")).to_contain_text("Publishable", timeout=60_000)
        stored.write_bytes(tiny.LICENCE)
        assert document["root_digest"] in page.locator("#record").inner_text()
        assert (tmp_path / "published/me/Tiny-MXFP4/tree/LICENSE").read_bytes() == tiny.LICENCE

        # a card that somebody spoiled in the run directory runs nothing and fetches nothing
        run = next((tmp_path / ".publisher/runs").iterdir())
        (run / "checkpoint/README.md").write_text(CARD)
        second = opened(browser, env, viewport={"width": 390, "height": 844}, color_scheme="dark")
        second.page.get_by_role("tab", name="Runs").click()
        second.page.get_by_label("Run", exact=True).click()
        second.page.get_by_role("option").first.click()
        expect(second.page.locator(DONE)).to_be_visible(timeout=20_000)
        second.page.get_by_role("tab", name="Model card").click()
        expect(second.page.locator("#card")).to_contain_text("onerror", timeout=20_000)
        assert second.page.locator("#card img, #card script").count() == 0
        assert second.page.evaluate("document.documentElement.scrollWidth") <= 390
        second.swear()

        # a spoiled checkpoint is reported by name, and the filter keeps what is asked for
        spoil(tmp_path / "published/me/Tiny-MXFP4/tree")
        page.get_by_role("tab", name="Check a checkpoint").click()
        fill(page, "check-path", "published/me/Tiny-MXFP4/tree")
        fill(page, "check-source", "model")
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.locator("#check-result")).to_contain_text("Not publishable", timeout=60_000)
        expect(page.locator("#check-result table.findings")).to_contain_text("LICENSE")
        fill(page, "check-search", "no such word")
        expect(page.locator("#check-result")).to_contain_text("No finding passes this filter")
        fill(page, "check-path", "nowhere")
        page.get_by_role("button", name="Check", exact=True).click()
        expect(page.locator("#check-result [role=alert]")).to_contain_text("nowhere", timeout=60_000)
        witness.swear()


def spoil(tree: Path) -> None:
    (tree / "LICENSE").write_bytes(tiny.LICENCE + b"and more\n")


def test_a_ready_recipe_fills_the_form_and_yaml_says_the_rest(browser: Browser, tmp_path: Path) -> None:
    """By the keyboard where a keyboard is all there is; no field lacks a name, and nothing is cut off on a phone."""
    tiny.kimi().write(tmp_path / "kimi")
    env = environment()
    command = [warm.python(), "-m", "publisher", "ui", "--port", env["GRADIO_SERVER_PORT"]]
    with serving(command, tmp_path, env):
        witness = opened(browser, env, viewport={"width": 390, "height": 844}, color_scheme="dark")
        page = witness.page
        start = page.get_by_label("Start from")
        start.focus()
        wanted = page.get_by_role("option", name="kimi-k2.5-p48-nvfp4")
        expect(wanted).to_be_visible()
        for _ in range(10):
            start.press("ArrowDown")
            if "active" in (wanted.get_attribute("class") or ""):
                break
        start.press("Enter")
        expect(page.locator("#source textarea, #source input")).to_have_value("hf://moonshotai/Kimi-K2.5")
        expect(page.get_by_label("Layout")).to_have_value("compressed-tensors")
        expect(page.get_by_label("Statistics")).to_have_value("./statistics.safetensors")  # that part is unfolded
        expect(page.get_by_label("YAML")).to_have_value(re.compile("sparsity"))
        expect(page.locator("#ready-told")).to_contain_text("As ISTA-DASLab/Kimi-K2.5-P48-NVFP4-W4A4-Preview")
        page.get_by_text("Evaluation, card and run").click()
        nameless = "e => !e.labels?.length && !e.ariaLabel && !e.getAttribute('aria-labelledby')"
        inputs = page.locator("#source, #more, #device, #workers, #shard-size, #mode").locator("input, textarea")
        assert inputs.evaluate_all(f"all => all.length && all.filter({nameless}).map(e => e.outerHTML)") == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        # a key with a field is refused by name, a key of nothing by the reader of recipes
        fill(page, "source", "kimi")
        fill(page, "base-model", "org/Kimi")
        fill(page, "repo", "me/Kimi-MXFP4")
        page.get_by_label("YAML").fill("layout: quark")
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#plan [role=alert]")).to_contain_text("`layout` has the field “Layout”", timeout=20_000)
        page.get_by_label("YAML").fill("colour: <b>blue</b>")
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#plan [role=alert]")).to_contain_text("unknown key 'colour'", timeout=20_000)

        # choices follow the format and each other; what is planned is what the fields and the YAML say together
        page.get_by_label("MXFP4").check()
        expect(page.get_by_label("Mode", exact=True)).to_have_value(re.compile("even"))
        expect(page.get_by_role("radio", name="modelopt")).to_have_count(0)
        layout = page.get_by_label("Layout")
        expect(layout).to_have_value("compressed-tensors")
        layout.focus()
        expect(page.get_by_role("option", name="quark")).to_be_visible()
        layout.press("ArrowUp")
        layout.press("Enter")
        expect(layout).to_have_value("quark")
        page.get_by_label("Mode", exact=True).click()
        expect(page.get_by_role("option")).to_have_text([re.compile(word) for word in ("even", "floor", "ceil")])
        page.get_by_role("option").last.click()
        layout.click()
        page.get_by_role("option", name="compressed-tensors").click()
        expect(layout).to_have_value("compressed-tensors")
        expect(page.locator(".toast-wrap")).not_to_contain_text("Error")
        page.get_by_label("Statistics").fill("")
        page.get_by_label("Processes").fill("2")
        page.get_by_label("YAML").fill('also: [{format: fp8, quantize: ["*.self_attn.o_proj"]}]')
        page.get_by_role("button", name="Make plan").click()
        expect(page.locator("#plan table.plan")).to_be_visible(timeout=60_000)
        expect(page.locator("#command")).to_contain_text("--workers 2")
        page.get_by_text("Recipe", exact=True).click()
        expect(page.locator("#recipe")).to_contain_text("format: fp8")
        expect(page.locator("#recipe")).to_contain_text("name: kimi-k2.5-p48-nvfp4")
        witness.swear()


def test_access_is_decided_on_the_page(browser: Browser, tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        repo = hub.seed_repo("org/model", {"config.json": b"{}"}, gated="manual")
        repo.ask("grace", why="<img src=x onerror=window.pwned=6>")
        repo.ask("mallory")
        env = environment(HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token)
        command = [warm.python(), "-m", "publisher", "ui", "--port", env["GRADIO_SERVER_PORT"]]
        with serving(command, tmp_path, env):
            witness = opened(browser, env)
            page = witness.page
            page.get_by_role("tab", name="Published").click()
            fill(page, "published-place", "hf://org/model")
            page.get_by_text("Access requests").click()
            page.locator("#access-list").click()
            expect(page.locator("#access-result")).to_contain_text("<img src=x onerror=window.pwned=6>", timeout=60_000)
            fill(page, "access-who", "grace")
            page.locator("#access-accept").click()
            expect(page.locator("#access-message")).to_contain_text("grace: accepted", timeout=60_000)
            expect(page.locator("#access-result")).not_to_contain_text("grace", timeout=60_000)
            fill(page, "access-who", "mallory")
            fill(page, "access-reason", "not today")
            page.locator("#access-reject").click()
            expect(page.locator("#access-message")).to_contain_text("mallory: rejected", timeout=60_000)
            witness.swear()
        assert {item["user"]["user"]: item["status"] for item in repo.asked} == {
            "grace": "accepted",
            "mallory": "rejected",
        }


def test_the_keyboard_reaches_the_plan(browser: Browser, tmp_path: Path) -> None:
    env = environment()
    command = [warm.python(), "-m", "publisher", "ui", "--port", env["GRADIO_SERVER_PORT"]]
    with serving(command, tmp_path, env):
        page = opened(browser, env).page
        page.locator("#source textarea, #source input").first.focus()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "make-plan":
                break
        page.keyboard.press("Enter")
        expect(page.locator("#plan [role=alert]")).to_contain_text("The form lacks", timeout=20_000)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The tracked files alone, as a push to a Space would bring them, marked so that nothing else can be meant."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout, so there is no list of tracked files")
    copy = tmp_path / "space"
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith(("tests/", "docs/images")) and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    package = copy / "publisher/__init__.py"
    package.write_text(re.sub(r'__version__ = ".*"', '__version__ = "9.9.9"', package.read_text()))
    return copy


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bare_checkout_is_a_space_that_plans_and_checks(browser: Browser, checkout: Path, tmp_path: Path) -> None:
    original = tiny.llama()
    original.files |= {"LICENSE": tiny.LICENCE, "README.md": tiny.SOURCE_CARD.encode()}
    quantized = tiny.mxfp4(original)
    quantized.files |= {"README.md": tiny.CARD.encode()}
    with LoopbackHub() as hub:
        hub.seed_repo("org/model", files_of(original.write(tmp_path / "a")))
        hub.seed_repo("org/model-mxfp4", files_of(quantized.write(tmp_path / "b")))
        hub.seed_repo("org/secret", files_of(tmp_path / "a"), private=True)
        env = environment(
            SPACE_ID="me/space",
            SYSTEM="spaces",
            HF_ENDPOINT=hub.endpoint,
            PYTHONPATH=str(checkout),
            HF_TOKEN=hub.token,
            HF_HOME="home",
        )
        with serving([sys.executable, "app.py"], checkout, env):
            witness = opened(browser, env)
            page = witness.page
            expect(page.locator("header.head")).to_contain_text("Version 9.9.9, on a Space")
            expect(page.get_by_role("tab", name="Runs")).to_have_count(0)

            # the server's disk is nobody's business
            fill(page, "source", str(checkout))
            fill(page, "repo", "me/model-mxfp4")
            page.get_by_label("MXFP4").check()
            page.get_by_role("button", name="Make plan").click()
            expect(page.locator("#plan [role=alert]")).to_contain_text("only repositories can be read")

            # a plan, and what to do with it
            fill(page, "source", "hf://org/model")
            page.get_by_role("button", name="Make plan").click()
            expect(page.locator("#plan table.plan")).to_be_visible(timeout=60_000)
            expect(page.locator("#node")).to_contain_text("Quantizing needs a node")
            expect(page.locator("#command")).to_contain_text("publisher push recipe.yaml --to hf")
            expect(page.locator("#start")).to_have_count(0)

            # a visitor without a login has none, though the Space has one
            fill(page, "source", "hf://org/secret")
            page.get_by_role("button", name="Make plan").click()
            expect(page.locator("#plan [role=alert]")).to_contain_text("org/secret", timeout=60_000)
            assert {request.token for request in hub.log} == {None}

            # any repository is checked by its headers, and its card shown
            page.get_by_role("tab", name="Check a checkpoint").click()
            fill(page, "check-path", "hf://org/model-mxfp4")
            fill(page, "check-source", "hf://org/model")
            page.get_by_role("button", name="Check", exact=True).click()
            expect(page.locator("#check-result .notice")).to_contain_text("rules run", timeout=60_000)
            page.get_by_role("button", name="Show the card").click()
            expect(page.locator("#check-card")).to_contain_text("org/model", timeout=60_000)
            fill(page, "check-path", "/etc/passwd")
            page.get_by_role("button", name="Check", exact=True).click()
            expect(page.locator("#check-result [role=alert]")).to_contain_text("only repositories can be read")
            witness.swear(besides=FRAME)


def test_a_space_with_oauth_offers_to_sign_in(browser: Browser, checkout: Path) -> None:
    oauth = {"OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "s", "OAUTH_SCOPES": "openid"}
    env = environment(
        SPACE_ID="me/space",
        SYSTEM="spaces",
        PYTHONPATH=str(checkout),
        OPENID_PROVIDER_URL="http://127.0.0.1:9",
        **oauth,
    )
    with serving([sys.executable, "app.py"], checkout, env):
        expect(opened(browser, env).page.get_by_role("button", name="Sign in with Hugging Face")).to_be_visible()
