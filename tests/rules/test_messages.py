"""What findings say where a number or a remedy is easily wrong: the text is what a user acts on."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.edits import EXPERT, Edit, put, quant
from tests.builders.tiny import Tiny, f32, mixture, mxfp4, nvfp4

SCALE = f"{EXPERT}.gate_proj.weight_scale_2"


def message(tiny: Tiny, edit: Edit, code: str, folder: Path) -> str:
    edit(tiny)
    report = run(Evidence(checkpoint=open_checkpoint(tiny.write(folder))), level="scales", select=[code])
    (finding,) = report.findings
    return finding.message


def _next_float(tiny: Tiny) -> None:
    (bits,) = struct.unpack("<I", tiny.tensors[SCALE].data)
    put(SCALE, f32(struct.unpack("<f", struct.pack("<I", bits + 1))[0]))(tiny)


def test_global_scales_one_step_apart_are_told_apart(tmp_path: Path) -> None:
    said = message(nvfp4(mixture()), _next_float, "FU04", tmp_path)
    first, second = (part.split()[1] for part in said.partition("differ: ")[2].partition(" (")[0].split(", "))
    assert first != second
    assert "up to 1.0000" in said


def test_an_infinite_global_scale_is_no_number_of_times_apart(tmp_path: Path) -> None:
    said = message(nvfp4(mixture()), put(SCALE, f32(float("inf"))), "FU04", tmp_path)
    assert "gate_proj inf" in said
    assert "times" not in said


def test_a_stray_declaration_is_not_to_be_copied(tmp_path: Path) -> None:
    """A Quark checkpoint with modelopt's second file: the remedy is to remove one, not to write two."""

    def stray(tiny: Tiny) -> None:
        tiny.hf_quant_config = nvfp4(mixture()).hf_quant_config

    said = message(mxfp4(mixture()), stray, "CF04", tmp_path)
    assert said.startswith("config.json declares quark, hf_quant_config.json modelopt; keep the one")


@pytest.mark.parametrize(("algo", "names"), [("NVFP4_AWQ", "vLLM would"), ("MXFP4", "vLLM and SGLang would")])
def test_engines_are_named_as_they_spell_themselves(algo: str, names: str, tmp_path: Path) -> None:
    said = message(nvfp4(mixture()), quant(lambda q: q.update(quant_algo=algo)), "CF03", tmp_path)
    assert names in said
