"""The block at the head of a card that the Hub reads: base model, licence, tags, gate form.

Keys and values are those the Hub accepts (huggingface.co/docs/hub/model-cards, models-gated); nothing of the upstream
card is inherited but its languages and its task, because its scores and its gate are not this repository's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from publisher.card.person import part
from publisher.card.upstream import Upstream
from publisher.checkpoint.open import Checkpoint
from publisher.licence import Licence

TASK = "text-generation"
LIBRARY = "transformers"  # what makes the Hub offer the commands for serving engines
_GATE = {"heading": "heading", "description": "description", "button": "button_content"}


def front_matter(
    *,
    checkpoint: Checkpoint,
    upstream: Upstream,
    licence: Licence,
    person: Mapping[str, Any],
    gate: str,
    title: str,
    engines: tuple[str, ...],
    index: Sequence[Mapping[str, Any]] = (),
    sparse: bool = False,
) -> dict[str, Any]:
    """The metadata in the order it is printed.

    Args:
        checkpoint: the result.
        upstream: the model under it.
        licence: the upstream terms.
        person: card.toml.
        gate: auto, manual or off.
        title: the repository's name without its owner.
        engines: serving engines that load the checkpoint.
        index: scores of benchmarks as `model-index` has them.
        sparse: whether weights were pruned.
    """
    name = part(person, "publisher").get("name")
    found: dict[str, Any] = {
        "base_model": upstream.repo.text,
        "base_model_relation": "quantized",
        **licence.metadata,
        "library_name": LIBRARY,
        "pipeline_tag": upstream.task or TASK,
        "language": list(upstream.languages) or None,
        "tags": [*tags(checkpoint, engines), *(["sparse"] if sparse else [])],
        "quantized_by": name,
        "new_version": person.get("new_version"),
    }
    if gate != "off":
        found |= gate_keys(part(person, "gate"), title=title, licence=licence)
    if index:
        found["model-index"] = [dict(entry) for entry in index]
    return {key: value for key, value in found.items() if value is not None}


def tags(checkpoint: Checkpoint, engines: tuple[str, ...]) -> list[str]:
    """Format, precision, producer's layout, engine; `custom_code` exactly when the configuration names code to run."""
    quant = checkpoint.quant
    found = ["quantized"]
    if quant is not None:
        fp4 = quant.format in ("nvfp4", "mxfp4")
        known = quant.dialect in ("modelopt", "quark", "compressed-tensors")
        found = [*([quant.format, "fp4"] if quant.format and fp4 else []), *found, *([quant.dialect] if known else [])]
    found += ["vllm"] if "vLLM" in engines else []
    found += ["custom_code"] if custom_code(checkpoint.config) else []
    return found


def custom_code(config: Mapping[str, Any]) -> bool:
    """Whether loading runs code of the repository: engines then want to be told to trust it."""
    return bool(config.get("auto_map"))


def gate_keys(gate: Mapping[str, Any], *, title: str, licence: Licence) -> dict[str, Any]:
    """The form a visitor fills in before access; the prompt has a default, the rest is a person's."""
    found: dict[str, Any] = {f"extra_gated_{key}": gate[name] for name, key in _GATE.items() if name in gate}
    found["extra_gated_prompt"] = gate.get("prompt") or _prompt(title, licence)
    if gate.get("fields"):
        found["extra_gated_fields"] = dict(gate["fields"])
    return found


def _prompt(title: str, licence: Licence) -> str:
    named = licence.metadata.get("license_name") or licence.metadata["license"]
    terms = ", ".join(named) if isinstance(named, list) else str(named)
    where = " The full text is in this repository." if licence.main else ""
    return (
        f"{title} is a quantized copy of another publisher's model and comes under the same terms ({terms}).{where} "
        "By asking for access you say that you have read them and will keep to them."
    )
