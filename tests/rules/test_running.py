"""Running rules: what is lacking is said, what is waived stays, what cannot be read is no pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import PublisherError
from publisher.rules import load_rules, run
from publisher.subjects import Evidence
from tests.builders.edits import DOWN, UP
from tests.builders.tiny import Tiny, f32, llama, nvfp4
from tests.builders.watched import Watched
from tests.rules.conftest import evidence


def broken() -> Tiny:
    tiny = nvfp4(llama())
    tiny.poke(f"{UP}.weight_scale", 9, 0x7F)
    return tiny


def test_what_is_lacking_is_named_per_rule(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    del tiny.files["README.md"]
    report = run(evidence(tmp_path, tiny), level="headers")
    reasons = {entry.code: entry.reason for entry in report.not_run}
    assert reasons["SV01"] == "needs --level scales"
    assert reasons["SD01"] == "needs the source: --source"
    assert reasons["LC02"] == "needs the source: --source"
    assert reasons["LC03"] == "needs the model card: README.md"
    assert reasons["CF21"] == "nothing to judge: there is no quark declaration"
    assert not set(reasons) & set(report.rules_run)
    assert set(reasons) | set(report.rules_run) == set(load_rules())


def test_headers_alone_read_no_tensor(tmp_path: Path) -> None:
    watched = Watched(nvfp4(llama()).write(tmp_path))
    checkpoint = open_checkpoint(watched)
    starts = {name: shard.data_start for name, shard in checkpoint.shards.items()}

    def tensor_reads() -> list[str]:
        return [path for path, begin, size in watched.reads if begin + size > starts.get(path, 1 << 60)]

    watched.reads.clear()
    run(Evidence(checkpoint=checkpoint), level="headers")
    assert tensor_reads() == []
    run(Evidence(checkpoint=checkpoint), level="scales")
    assert tensor_reads() != []


def test_the_report_has_the_contracts_shape(tmp_path: Path) -> None:
    report = run(evidence(tmp_path, broken())).to_json()
    assert set(report) == {"findings", "not_run", "publishable", "engines", "summary", "tool"}
    (finding,) = report["findings"]
    assert finding["where"] == {
        "file": "model-00001-of-00002.safetensors",
        "tensor": f"{UP}.weight_scale",
        "index": [2, 1],
    }
    assert (finding["code"], finding["slug"], finding["severity"]) == ("SV01", "nan-block-scale", "error")
    assert "vllm" in finding["engines"]
    assert report["publishable"] is False
    json.dumps(report, allow_nan=False)


def test_a_waiver_unblocks_and_stays_in_the_report(tmp_path: Path) -> None:
    report = run(evidence(tmp_path, broken()), waivers={"SV01": " a dead row "})
    assert report.publishable
    assert report.findings[0].waived == "a dead row"
    assert report.waivers == {"SV01": "a dead row"}
    assert not run(evidence(tmp_path / "b", broken()), waivers={"SV03": "another rule"}).publishable


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"waivers": {"SV01": " "}}, "no reason"),
        ({"waivers": {"XX99": "why"}}, "no rule's code"),
        ({"waivers": {"SV": "a family"}}, "no rule's code"),
        ({"select": ["ZZ"]}, "No rule is called"),
        ({"ignore": [""]}, "No rule is called"),
        ({"level": "deep"}, "no level"),
    ],
)
def test_a_wrong_request_is_refused(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match=told):
        run(evidence(tmp_path), **options)


def test_a_shard_that_vanishes_is_an_error_of_every_scale_rule(tmp_path: Path) -> None:
    found = evidence(tmp_path)
    (tmp_path / "c" / "model-00002-of-00002.safetensors").unlink()
    report = run(found, select=["SV", "FU01"])
    assert {f.code for f in report.errors} >= {"SV01", "SV05", "FU01"}
    assert report.rules_run == ()


def test_scales_outside_their_file_are_not_taken_for_checked(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.after.append(lambda folder: _cut(folder / "model-00002-of-00002.safetensors", 4000))
    report = run(evidence(tmp_path, tiny))
    assert {f.code for f in report.errors} == {"CN04", "CN13"}
    assert "not finished" in next(n.reason for n in report.not_run if n.code == "SV01")


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:-size])


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(evidence(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] > 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_hostile_numbers_in_names_and_configs_end_soon(tmp_path: Path) -> None:
    """Expert numbers and layer counts out of a stranger's files must not become loops or tracebacks."""
    tiny = nvfp4(llama())
    tiny.tensors[f"model.layers.0.mlp.experts.{10**6 - 1}.up_proj.weight"] = f32(1.0)
    tiny.tensors[f"model.layers.0.mlp.experts.{'9' * 5000}.up_proj.weight"] = f32(1.0)
    tiny.config |= {"num_experts": 10**30, "num_hidden_layers": 10**30, "hidden_size": -1, "text_config": 7}
    report = run(evidence(tmp_path, tiny))
    assert not any("could not finish" in finding.message for finding in report.findings)
    assert "NM09" in {finding.code for finding in report.findings}
    assert report.seconds < 5


@pytest.mark.parametrize("block", [None, 7, [], "modelopt", {}, {"quant_method": ["quark"], "export": 3}])
def test_a_senseless_declaration_is_a_finding(block: Any, tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.config["quantization_config"] = block
    report = run(evidence(tmp_path, tiny))
    assert not report.publishable
    assert not any("could not finish" in finding.message for finding in report.findings)


def test_a_dead_module_is_told_by_its_own_name(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.tensors[f"{DOWN}.weight_scale_2"] = f32(0.0)
    (finding,) = run(evidence(tmp_path, tiny)).findings
    assert DOWN in finding.message
    assert "0" in finding.message
