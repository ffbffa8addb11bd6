"""The contract every engine keeps: what is in `ENGINES` can be planned for, named when missing, and started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from publisher import jsonio
from publisher.engines import ENGINES, base
from publisher.engines.base import Engine, write_job
from publisher.errors import EngineError
from publisher.plan.model import Calibration, Decision, Plan, Recipe

engines = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
GATE, UP = "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"


def plan(tmp_path: Path, **overrides: Any) -> Plan:
    settings = {
        "format": "nvfp4",
        "layout": "modelopt",
        "engine": "modelopt",
        "mode": "max",
        "activations": "calibrated",
    }
    recipe = Recipe(
        name="tiny",
        source=str(tmp_path / "source"),
        calibration=Calibration(data=tmp_path / "text.txt", samples=4),
        **(settings | overrides),
    )
    fused = "model.layers.0.mlp.gate_up_proj"
    return Plan(
        recipe=recipe,
        source_label=recipe.source,
        source_commit=None,
        decisions=(
            Decision("lm_head", "keep", None, "head"),
            Decision(GATE, "quantize", "*.mlp.*", "", fused),
            Decision(UP, "quantize", "*.mlp.*", "", fused),
        ),
        classes=(),
        exclude=("lm_head",),
        quantization_config={"quant_method": "modelopt", "ignore": ["lm_head"]},
        hf_quant_config=None,
        bytes_before=10,
        bytes_after=5,
        shards=1,
        disk_needed=1,
        memory_needed=1,
    )


@pytest.fixture(autouse=True)
def own_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENGINES:
        monkeypatch.delenv(f"PUBLISHER_{name.upper()}_PYTHON", raising=False)


def test_the_engines_are_listed_under_their_own_names() -> None:
    assert sorted(ENGINES) == ["modelopt", "native"]
    assert all(engine.name == name for name, engine in ENGINES.items())


@engines
def test_an_engine_says_what_it_makes(engine: Engine) -> None:
    assert set(engine.formats) <= {"nvfp4", "mxfp4"}
    assert engine.formats
    assert engine.layouts


@engines
def test_a_plan_becomes_a_job_that_the_schema_accepts(engine: Engine, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(engine), "available", lambda self: None)
    path = tmp_path / "run" / "job.json"
    made = plan(tmp_path)
    write_job(
        engine,
        path,
        plan=made,
        source_dir=tmp_path / "source",
        output=tmp_path / "run" / "checkpoint",
        staging=tmp_path / "run" / "staging",
        device="cpu",
    )
    job = json.loads(path.read_text())
    assert jsonio.problems(job, "job") == []
    assert job["engine"] == engine.name
    assert job["quantize"] == [GATE, UP]
    assert job["groups"] == {"model.layers.0.mlp.gate_up_proj": [GATE, UP]}
    assert job["exclude"] == ["lm_head"]
    assert job["calibration"]["data"] == str(tmp_path / "text.txt")
    assert job["plan_digest"] == made.digest
    assert job["device"] == "cpu"
    assert all(Path(job[key]).is_absolute() for key in ("source", "output", "staging"))


@pytest.mark.parametrize(
    ("activations", "kv_cache", "needed"),
    [("calibrated", "none", True), ("none", "none", False), ("none", "fp8", True), ("none", "fp8-cast", False)],
)
def test_calibration_data_is_named_only_where_it_is_used(
    tmp_path: Path, activations: str, kv_cache: str, needed: bool
) -> None:
    made = plan(tmp_path, activations=activations, kv_cache=kv_cache)
    job = base.job_file("modelopt", made, tmp_path, tmp_path / "out", tmp_path / "staging", "auto")
    assert (job["calibration"] is not None) == needed


@engines
def test_the_command_runs_a_module_of_this_package_with_this_interpreter(engine: Engine) -> None:
    command = engine.command(Path("/run/job.json"))
    assert command[:2] == [sys.executable, "-m"]
    assert command[2].startswith("publisher.")
    assert command[3:] == ["/run/job.json"]


@engines
def test_a_variable_names_another_environment(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PUBLISHER_{engine.name.upper()}_PYTHON", "/opt/vendor/bin/python")
    assert engine.command(Path("job.json"))[0] == "/opt/vendor/bin/python"
    problem = engine.available()
    assert problem is not None
    assert "/opt/vendor/bin/python" in problem
    monkeypatch.setenv(f"PUBLISHER_{engine.name.upper()}_PYTHON", sys.executable)
    assert engine.available() is None


@engines
def test_a_missing_library_is_named_with_what_installs_it(engine: Engine, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    problem = engine.available()
    assert problem is not None
    assert "torch" in problem
    assert f"pip install 'fp4-publisher[{engine.name}]'" in problem
    with pytest.raises(EngineError, match=f"The engine {engine.name} is not available"):
        write_job(
            engine, tmp_path / "job.json", plan=plan(tmp_path), source_dir=tmp_path, output=tmp_path, staging=tmp_path
        )
    assert not (tmp_path / "job.json").exists()


def test_nothing_heavy_is_imported_to_name_the_engines() -> None:
    code = (
        "import sys\nfrom publisher.engines import ENGINES\n[e.available() for e in ENGINES.values()]\n"
        "print([m for m in ('torch', 'transformers', 'modelopt') if m in sys.modules])"
    )
    root = Path(base.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
