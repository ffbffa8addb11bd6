"""The card's table of the whole: parameters as the model has them, bytes as they are stored, and how both compare.

Parameters are logical (a packed byte holds two weights, scales hold none). Those active per token are given only for
the kinds of models whose rule is in `data/card/models.json`: everything of the language model but its experts, and of
the experts the share that a token is sent to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from publisher import jsonio
from publisher.card.headers import logical_parameters
from publisher.card.upstream import Upstream
from publisher.card.value import Row, Value, count, large, size
from publisher.checkpoint.census import QUANTIZED, Census, logical_elements
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import text_config

MODELS = "card/models.json"
HEADERS = "shard headers"


def parameter_rows(checkpoint: Checkpoint, census: Census) -> tuple[Row, ...]:
    """Logical parameters: in all, by how they are stored, active per token."""
    return tuple(_parameters(checkpoint, census))


def storage_rows(checkpoint: Checkpoint, upstream: Upstream) -> tuple[Row, ...]:
    """Bytes and shards, and both compared with the source."""
    return tuple(_storage(checkpoint, upstream))


def active_parameters(checkpoint: Checkpoint) -> int | None:
    """Parameters of the language model that one token uses, by the rule of its kind; None where there is none."""
    text = text_config(checkpoint)
    kinds = (text.get("model_type"), checkpoint.config.get("model_type"))
    rules = jsonio.data(MODELS)["active"]
    rule = next((rules[kind] for kind in kinds if isinstance(kind, str) and kind in rules), None)
    if rule is None:
        return None
    total, used = text.get(rule["experts"]), text.get(rule["per_token"])
    if type(total) is not int or type(used) is not int or not 0 < used <= total:
        return None
    quantized = {name: module.quantized for name, module in checkpoint.modules.items()}
    always = routed = 0
    for name, module in checkpoint.modules.items():
        if module.role in ("vision", "projector", "mtp"):
            continue
        elements = sum(logical_elements(ref, {name: quantized[name]}) for ref in module.tensors.values())
        if module.role == "expert":
            routed += elements
        else:
            always += elements
    return always + routed * used // total if routed else None


def _parameters(checkpoint: Checkpoint, census: Census) -> Iterator[Row]:
    total, packed = logical_parameters(checkpoint)
    if not total:
        return
    share = f", {packed / total:.1%} of them quantized" if packed else ""
    yield Row("Parameters", Value(f"{large(total)} ({count(total)}){share}", HEADERS))
    stored = {form: tally.parameters for form, tally in census.forms.items() if tally.parameters}
    if len(stored) > 1:
        parts = [f"{_called(form)} {large(number)}" for form, number in sorted(stored.items(), key=lambda x: -x[1])]
        yield Row("Parameters by format", Value("; ".join(parts), HEADERS))
    active = active_parameters(checkpoint)
    if active:
        told = f"about {large(active)} of the language model, embeddings and head included"
        yield Row("Active parameters per token", Value(told, f"{HEADERS}, config.json: num_experts_per_tok"))


def _called(form: str) -> str:
    return form.upper() if form in QUANTIZED or form in ("bf16", "f16", "f32") else form


def _storage(checkpoint: Checkpoint, upstream: Upstream) -> Iterator[Row]:
    stored, (total, _) = checkpoint.tensor_bytes, logical_parameters(checkpoint)
    files: Mapping[str, int] = {name: header.file_size for name, header in checkpoint.shards.items()}
    if files:
        most = max(files.values())
        several = f" in {count(len(files))} shards, the largest {size(most)}" if len(files) > 1 else " in one shard"
        yield Row("Storage", Value(f"{size(stored)}{several}", HEADERS))
    if stored and total and upstream.size:
        times = upstream.size / stored
        ratio = f"{times:.2f} times smaller" if times >= 1.005 else f"{1 / times:.2f} times as large"
        text = f"{stored / upstream.size:.1%} of the source's {size(upstream.size)} ({ratio})"
        bits = f"{8 * stored / total:.2f} bits per parameter"
        yield Row("Compared with the source", Value(f"{text}; {bits}", "shard headers of both"))
