"""The report's page in a real browser: it loads nothing, its policy holds, it fits a phone, it is quick when large."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from publisher.checkpoint.open import open_checkpoint
from publisher.findings import ERROR, WARNING, Finding, NotRun, Report
from publisher.reports import html
from publisher.reports.overview import look
from publisher.reports.validation import Validation
from tests.builders import tiny

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = "model.layers.0.<img src=x onerror=window.pwned=1>.<script>window.pwned=2</script>_proj"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine's PATH; `.ci/run` installs it")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    made = tiny.nvfp4(tiny.kimi())
    made.tensors[f"{HOSTILE}.weight"] = tiny.Tensor("BF16", (2, 2), bytes(8))
    checkpoint = open_checkpoint(made.write(folder / "c"))
    findings = (
        Finding(code="SV01", slug="nan-block-scale", severity=ERROR, message="5 NaN bytes.", file="a.safetensors",
                tensor="language_model.model.layers.1.mlp.experts.0.up_proj.weight_scale", engines=("vllm",)),
        Finding(code="FU01", slug="x", severity=WARNING, message=HOSTILE, tensor=HOSTILE),
    )  # fmt: skip
    report = Report(findings=findings, not_run=(NotRun(code="SD01", reason=HOSTILE),), rules_run=("SV01",))
    validation = Validation(
        report=report, label=f"hf://{HOSTILE}", overview=look(checkpoint, level="scales"), date="2026-11-21"
    )
    path = folder / "report.html"
    path.write_text(html.write(validation), encoding="utf-8")
    return path


def opened(browser: Browser, path: Path, **context: Any) -> tuple[Page, list[str]]:
    page = browser.new_context(**context).new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else told.append(r.url))
    page.goto(path.as_uri())
    return page, told


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_loads_nothing_runs_nothing_and_fits(browser: Browser, page_file: Path, scheme: Any, width: int) -> None:
    page, told = opened(browser, page_file, color_scheme=scheme, viewport={"width": width, "height": 800})
    assert told == []
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert HOSTILE in page.locator("h1").inner_text()
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, body.strip("rgb()").split(","))) > 380) == (scheme == "light"), "the stylesheet is blocked"


def test_the_policy_stops_what_escaping_would_miss(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    injected = "<script>window.pwned=9</script><style>body{display:none}</style><img src=http://127.0.0.1:9/x.png>"
    broken.write_text(page_file.read_text().replace("</main>", f"{injected}</main>"), encoding="utf-8")
    page, _ = opened(browser, broken)
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("getComputedStyle(document.body).display") == "block"


def test_a_reader_can_unfold_findings_and_point_at_a_cell(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file)
    details = page.locator("#findings details")
    assert details.nth(0).get_attribute("open") is not None
    assert details.nth(1).get_attribute("open") is None
    details.nth(1).locator("summary").click()
    assert details.nth(1).locator(".places li").is_visible()
    title = page.locator(".strip rect.f-nvfp4 title").first
    assert "nvfp4" in (title.text_content() or "")
    box = page.locator(".strip").first.bounding_box()
    assert box is not None
    assert box["width"] > 200
    assert page.locator(".strip .mark.error").count() == 1
    green = page.locator(".strip rect.f-nvfp4").first.evaluate("e => getComputedStyle(e).fill")
    grey = page.locator(".strip rect.f-bf16").first.evaluate("e => getComputedStyle(e).fill")
    assert green != grey


def test_a_large_model_is_small_and_quick(browser: Browser, tmp_path: Path) -> None:
    from benchmarks import kimi

    sizes = kimi.Sizes(layers=60, experts=48)
    entries = kimi.quantized(kimi.source(sizes), "nvfp4")
    kimi.write(tmp_path / "k", entries, kimi.config(sizes, "nvfp4"), 20, lambda entry: None)
    overview = look(open_checkpoint(tmp_path / "k"), level="headers")
    measured = {f"language_model.model.layers.{layer}.mlp.experts.{n}.up_proj": {"rel_rmse": 0.09 + n / 1e4}
                for layer in range(1, 61) for n in range(48)}  # fmt: skip
    report = Report(measured=measured)
    path = tmp_path / "report.html"
    path.write_text(html.write(Validation(report=report, label="kimi", overview=overview)), encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    page, told = opened(browser, path)
    assert told == []
    spent = "performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart"
    assert page.evaluate(spent) < 5000
    assert page.locator("#errors .strip rect").count() == 60
