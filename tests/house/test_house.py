"""The house keeps its rules: layers, doors, a test per module, generated documents current, a light start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path for top in ("publisher", "validators") for path in (ROOT / top).rglob("*.py"))

# third-party package -> the only places that may import it
DOORS = {
    "gradio": ("publisher/ui/",),
    "jinja2": ("publisher/card/render.py",),
    "jsonschema": ("publisher/jsonio.py",),
    "markdown_it": ("publisher/claims/document.py", "publisher/card/prose.py"),
    "yaml": ("publisher/jsonio.py",),
    "huggingface_hub": (
        "publisher/checkpoint/source.py",
        "publisher/checkpoint/wire.py",
        "publisher/hub/client.py",
        "publisher/hub/huggingface.py",
        "publisher/hub/proposals.py",
    ),
    "torch": ("publisher/native/", "publisher/engines/programs/"),
    "transformers": ("publisher/native/", "publisher/engines/programs/"),
    "modelopt": ("publisher/engines/programs/",),
    "numba": ("publisher/formats/", "publisher/native/"),
    "ml_dtypes": (),
    "safetensors": ("publisher/engines/programs/",),
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", DOORS)
def test_doors(package: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name.split(".")[0] == package for name in imported(path))
        and not str(path.relative_to(ROOT)).startswith(DOORS[package] or ("-",))
    ]
    assert not wrong, f"{package} is imported outside its door"


def test_layers() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_command_line_starts_light() -> None:
    code = (
        "import sys, publisher.cli; "
        "heavy = {'torch', 'gradio', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules); "
        "sys.exit(' '.join(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_everything_outside_the_engines_runs_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None\n"
        "from publisher import pipeline, rules, doctor, card, hub\n"
        "from publisher.cli import plan, push, validate, verify, card\n"
        "rules.load_rules()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# A module without logic of its own, or one that only a subprocess or a browser test can exercise, names that test here.
TESTED_ELSEWHERE = {
    "publisher/__main__.py": "tests/cli/test_main.py",
    "publisher/native/__main__.py": "tests/native/test_main.py",
    "publisher/plan/model.py": "tests/plan/test_decide.py",
    "publisher/cli/options.py": "tests/cli/test_push.py",
    "publisher/cli/__init__.py": "tests/cli/test_main.py",
    "publisher/ui/__init__.py": "tests/browser/test_app.py",
}


def defines(path: Path) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body)


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[-2] != "validators"], ids=lambda p: p.name)
def test_every_module_has_a_test(path: Path) -> None:
    relative = path.relative_to(ROOT)
    if path.name == "__init__.py" and str(relative) not in TESTED_ELSEWHERE and not defines(path):
        return
    named = TESTED_ELSEWHERE.get(str(relative))
    mirrored = ROOT / "tests" / relative.relative_to("publisher").parent / f"test_{relative.stem.strip('_')}.py"
    wanted = ROOT / named if named else mirrored
    assert wanted.exists(), f"{relative} has no {wanted.relative_to(ROOT)}"


def test_generated_documents_are_current() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert "make demo" in text
    assert "make test" in text
    for image in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (ROOT / image).exists(), f"README shows {image}, which is not there"


def test_the_space_needs_what_the_core_needs() -> None:
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    space = (ROOT / "requirements.txt").read_text()
    for requirement in core:
        assert requirement in space, f"requirements.txt lacks {requirement}"
    assert "torch" not in re.sub(r"#.*", "", space)


def test_nothing_names_a_private_place() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    forbidden = re.compile(r"(^|[^A-Za-z0-9_./])/(work|farm|root)/[A-Za-z]|pythonhosted|registry\.npm")
    wrong = []
    for name in tracked:
        if name.endswith((".py", ".md", ".toml", ".yaml", ".txt", ".lock", ".in", ".j2", ".json", "run", "Makefile")):
            text = (ROOT / name).read_text(errors="replace")
            if forbidden.search(text) and name != "tests/house/test_house.py":
                wrong.append(name)
    assert not wrong
