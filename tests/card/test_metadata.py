"""The metadata block: keys the Hub knows, licence names it accepts, nothing inherited that is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCardData

from publisher import jsonio, licence, rules
from publisher.card.context import card_context
from publisher.card.render import render
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.source import resolve
from publisher.plan.model import TargetSpec
from publisher.subjects import Evidence

# https://huggingface.co/docs/hub/models-gated
FIELD_TYPES = {"text", "checkbox", "date_picker", "country"}


def metadata(folder: Path, inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return dict(card_context(checkpoint=open_checkpoint(folder), **{**inputs, **changes}).metadata)


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("license: mit", {"license": "mit"}),
        ("license: modified-mit", {"license": "other", "license_name": "modified-mit", "license_link": "LICENSE"}),
        (
            "license: other\nlicense_name: kimi\nlicense_link: LICENSE",
            {"license": "other", "license_name": "kimi", "license_link": "LICENSE"},
        ),
    ],
)
def test_the_licence_is_upstreams(
    front: str, expected: dict[str, str], nvfp4: Path, inputs: dict[str, Any], source: Path
) -> None:
    (source / "README.md").write_text(f"---\n{front}\n---\n")
    found = metadata(nvfp4, inputs, source=resolve(str(source)))
    assert {key: found.get(key) for key in ("license", "license_name", "license_link")} == {
        "license": None,
        "license_name": None,
        "license_link": None,
        **expected,
    }


def test_what_the_client_makes_of_it_is_what_we_wrote(mxfp4: Path, inputs: dict[str, Any]) -> None:
    found = metadata(mxfp4, inputs)
    assert ModelCardData(**found).to_dict() == found
    assert found["tags"] == ["mxfp4", "fp4", "quantized", "quark", "vllm"]


def test_the_form_holds_the_persons_fields(nvfp4: Path, inputs: dict[str, Any]) -> None:
    purpose = {"type": "select", "options": ["Research", {"label": "Other", "value": "other"}]}
    gate = {"button": "Ask", "description": "Why.", "prompt": "Accept.", "fields": {"Purpose": purpose, "You": "text"}}
    found = metadata(nvfp4, inputs, person={"base_model": "a/b", "gate": gate}, target=TargetSpec(repo="a/c"))
    assert found["extra_gated_button_content"] == "Ask"
    assert found["extra_gated_description"] == "Why."
    assert found["extra_gated_prompt"] == "Accept."
    assert found["extra_gated_fields"] == {"Purpose": purpose, "You": "text"}
    assert "extra_gated_heading" not in found
    assert {kind for kind in found["extra_gated_fields"].values() if isinstance(kind, str)} <= FIELD_TYPES


def test_the_form_sends_nobody_to_a_text_that_is_not_there(nvfp4: Path, inputs: dict[str, Any], source: Path) -> None:
    assert "The full text is in this repository." in metadata(nvfp4, inputs)["extra_gated_prompt"]
    (source / "LICENSE").rename(source / "NOTICE")
    found = metadata(nvfp4, inputs, source=resolve(str(source)))["extra_gated_prompt"]
    assert "same terms" in found
    assert "full text" not in found, "a notice is no licence"


@pytest.mark.parametrize(
    "front", ["license: apache-2.0", "license: other\nlicense_name: kimi", "license: modified-mit", "a: b"]
)
def test_the_publication_rules_have_nothing_to_say(
    front: str, nvfp4: Path, inputs: dict[str, Any], source: Path
) -> None:
    (source / "README.md").write_text(f"---\n{front}\n---\n")
    origin = resolve(str(source))
    licence.copy(origin.files, nvfp4)
    context = card_context(checkpoint=open_checkpoint(nvfp4), **{**inputs, "source": origin})
    jsonio.write_atomic(nvfp4 / "README.md", render(context))
    evidence = Evidence(
        checkpoint=open_checkpoint(nvfp4),
        source=open_checkpoint(origin.files),
        base_model="tiny-org/Tiny-1B",
        gate="manual",
    )
    report = rules.run(evidence, level="headers", select=("LC",))
    assert report.findings == ()
    assert {"LC01", "LC02", "LC03", "LC06"} <= set(report.rules_run)
