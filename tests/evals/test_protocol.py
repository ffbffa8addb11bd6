"""What refuses a comparison: one change to a good pair, the field named; and the changes that refuse nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.evals import protocol
from publisher.evals.results import Key, Run, read_run, read_runs
from tests.evals.conftest import document, real, write

KEY = Key("quiz", "acc", "none")
Edit = Callable[[dict[str, Any]], object]


def run(folder: Path, body: dict[str, Any]) -> Run:
    return read_run(Path(write(folder, body)))


def good() -> dict[str, Any]:
    body = document({"quiz:acc,none": (0.5, 0.01)})
    body["configs"]["quiz"] |= {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "temperature": 0.0},
        "filter_list": [{"name": "none", "filter": [{"function": "regex", "regex_pattern": "x"}]}],
        "fewshot_config": {"sampler": "default"},
    }
    body["task_hashes"] = {"quiz": "a" * 64}
    return body


def config(name: str, value: Any) -> Edit:
    return lambda body: body["configs"]["quiz"].__setitem__(name, value)


def whole(name: str, value: Any) -> Edit:
    return lambda body: body.__setitem__(name, value)


UNLIKE: dict[str, Edit] = {
    "version": whole("versions", {"quiz": 2.0}),
    "num_fewshot": whole("n-shot", {"quiz": 4}),
    "n-samples.effective": whole("n-samples", {"quiz": {"original": 1000, "effective": 100}}),
    "n-samples.original": whole("n-samples", {"quiz": {"original": 1001, "effective": 1000}}),
    "limit": lambda body: body["config"].__setitem__("limit", 1000),
    "generation_kwargs": config("generation_kwargs", {"until": ["\n"], "do_sample": True, "temperature": 0.6}),
    "chat_template_sha": whole("chat_template_sha", "b" * 64),
    "system_instruction_sha": whole("system_instruction", "Be brief."),
    "filter_list": config("filter_list", [{"name": "none", "filter": [{"function": "regex", "regex_pattern": "y"}]}]),
    "metric_list": config("metric_list", [{"metric": "acc", "aggregation": "median", "higher_is_better": True}]),
    "dataset_path": config("dataset_path", "other/quiz"),
    "dataset_name": config("dataset_name", "extra"),
    "test_split": config("test_split", "validation"),
    "dataset_kwargs": config("dataset_kwargs", {"revision": "abc"}),
    "doc_to_text": config("doc_to_text", "Q: {{question}}"),
    "description": config("description", "Answer."),
    "target_delimiter": config("target_delimiter", ""),
    "fewshot_delimiter": config("fewshot_delimiter", "\n"),
    "fewshot_split": config("fewshot_split", "train"),
    "fewshot_config.sampler": config("fewshot_config", {"sampler": "balanced"}),
    "repeats": config("repeats", 5),
    "output_type": config("output_type", "multiple_choice"),
    "model_args.add_bos_token": lambda body: body["config"]["model_args"].__setitem__("add_bos_token", True),
    "model_args.max_gen_toks": lambda body: body["config"]["model_args"].__setitem__("max_gen_toks", 512),
    "task_hashes": whole("task_hashes", {"quiz": "b" * 64}),
}


@pytest.mark.parametrize("field", UNLIKE)
def test_each_field_refuses_by_name(tmp_path: Path, field: str) -> None:
    body = good()
    UNLIKE[field](body)
    found = protocol.differences(run(tmp_path / "a", good()), run(tmp_path / "b", body), KEY)
    assert [difference.field for difference in found] == [field]


ALIKE: dict[str, Edit] = {
    "another harness of the same task": whole("lm_eval_version", "0.4.13"),
    "versions as text": whole("versions", {"quiz": "1.0"}),
    "seeds of what is not drawn": lambda body: body["config"].update(random_seed=7, numpy_seed=7, torch_seed=7),
    "a seed of generation": lambda body: body["configs"]["quiz"]["generation_kwargs"].__setitem__("seed", 42),
    "numbers of another kind": config("generation_kwargs", {"until": ["\n"], "do_sample": "False", "temperature": 0}),
    "the model and its place": lambda body: body["config"].update(model="vllm", model_args="pretrained=x,dtype=auto"),
    "where data lie": config("dataset_kwargs", {"trust_remote_code": True, "cache_dir": "/data"}),
    "turns without a chat template": whole("fewshot_as_multiturn", True),
    "what the version says elsewhere": config("metadata", {"version": 1.0, "pretrained": "x", "config_source": "y"}),
    "no hash": whole("task_hashes", {}),
    "batches and devices": lambda body: body["config"].update(batch_size="auto", device="cuda:0", bootstrap_iters=0),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_no_protocol_refuses_nothing(tmp_path: Path, name: str) -> None:
    body = good()
    ALIKE[name](body)
    assert protocol.differences(run(tmp_path / "a", good()), run(tmp_path / "b", body), KEY) == ()


def test_turns_matter_with_a_chat_template(tmp_path: Path) -> None:
    one, other = good() | {"chat_template_sha": "c"}, good() | {"chat_template_sha": "c", "fewshot_as_multiturn": True}
    found = protocol.differences(run(tmp_path / "a", one), run(tmp_path / "b", other), KEY)
    assert [difference.field for difference in found] == ["fewshot_as_multiturn"]


def test_prompts_written_as_code_are_compared_without_their_place_in_memory(tmp_path: Path) -> None:
    one, other = good(), good()
    config("doc_to_text", "<function doc_to_text at 0x7f0a>")(one)
    config("doc_to_text", "<function doc_to_text at 0x55c2>")(other)
    assert protocol.differences(run(tmp_path / "a", one), run(tmp_path / "b", other), KEY) == ()


def test_a_group_is_compared_task_by_task(tmp_path: Path) -> None:
    body = document({"all:acc,none": (0.5, 0.01), "a:acc,none": (0.5, 0.02), "b:acc,none": (0.5, 0.02)})
    body["group_subtasks"] = {"all": ["a", "b"]}
    key = Key("all", "acc", "none")
    other = copy.deepcopy(body)
    other["n-shot"]["b"] = 0
    found = protocol.differences(run(tmp_path / "a", body), run(tmp_path / "b", other), key)
    assert [(difference.field, difference.task) for difference in found] == [("num_fewshot", "b")]
    other["group_subtasks"] = {"all": ["a"]}
    found = protocol.differences(run(tmp_path / "a", body), run(tmp_path / "c", other), key)
    assert [difference.field for difference in found] == ["group_subtasks"]


def test_real_runs_of_three_versions_are_comparable() -> None:
    runs = [read_runs(Path(real(version, "source")))[0] for version in ("0.4.9", "0.4.11", "0.4.13")]
    for one in runs:
        for other in runs:
            for key in one.scores:
                assert protocol.differences(one, other, key) == ()


def test_unlike_seeds_are_samples_on_both_sides_only(tmp_path: Path) -> None:
    one, two, three, four = (run(tmp_path / str(n), document({"quiz:acc,none": (0.5, 0.01)}, seed=n)) for n in range(4))
    assert protocol.seeds_differ([one], [one], KEY) is None
    assert protocol.seeds_differ([one, two], [three, four], KEY) is None
    found = protocol.seeds_differ([one], [two], KEY)
    assert found is not None
    assert (found.field, found.baseline, found.result) == ("fewshot_seed", "0", "1")
    assert protocol.seeds_differ([one], [one, two], KEY) is not None


@pytest.mark.parametrize("change", [whole("n-shot", {"quiz": 0}), config("fewshot_config", {"sampler": "first_n"})])
def test_a_seed_that_draws_nothing_does_not_matter(tmp_path: Path, change: Edit) -> None:
    one, other = (document({"quiz:acc,none": (0.5, 0.01)}, seed=seed) for seed in (1, 2))
    change(one), change(other)
    assert protocol.seeds_differ([run(tmp_path / "a", one)], [run(tmp_path / "b", other)], KEY) is None


def test_seeds_of_generation_tell_runs_apart(tmp_path: Path) -> None:
    body = good()
    body["config"]["gen_kwargs"] = "temperature=0.6,seed=42"
    assert ("gen_kwargs.seed", 42) in protocol.seeds(run(tmp_path, body))


def test_a_part_of_the_documents_is_told(tmp_path: Path) -> None:
    body = good()
    assert not protocol.partial(run(tmp_path / "a", body), KEY)
    body["n-samples"] = {"quiz": {"original": 1000, "effective": 10}}
    assert protocol.partial(run(tmp_path / "b", body), KEY)


@pytest.mark.parametrize("value", [None, 3, [], "text", {"a": 1}, {"quiz": {"b": {}}}, {"quiz": [3]}])
@pytest.mark.parametrize(
    "name", ["configs", "versions", "n-shot", "n-samples", "config", "task_hashes", "chat_template"]
)
def test_any_value_of_any_type_is_compared(tmp_path: Path, name: str, value: Any) -> None:
    one, other = run(tmp_path / "a", good()), run(tmp_path / "b", good() | {name: value})
    for difference in protocol.differences(one, other, KEY):
        assert len(str(difference)) < 500
    protocol.seeds(other), protocol.partial(other, KEY), protocol.seeds_differ([one], [other], KEY)


def test_the_refusal_names_both_runs_and_every_field(tmp_path: Path) -> None:
    body = good() | {"versions": {"quiz": 2}, "n-shot": {"quiz": 0}}
    found = protocol.differences(run(tmp_path / "a", good()), run(tmp_path / "b", body), KEY)
    error = protocol.UnlikeProtocols(KEY, ("BF16", "NVFP4"), found)
    assert "BF16 and NVFP4 cannot be compared on quiz:acc,none" in error.message
    assert "version of quiz is 1.0 in one and 2.0 in the other" in error.message
    assert "num_fewshot of quiz is 5 in one and 0 in the other" in error.message
    assert error.differences[0].to_json()["field"] == "version"
