"""What about a source stops every plan, seen before any pattern is looked at.

A damaged header, a shard that is not there, weights stored in a way that cannot be decoded, an architecture the
configuration does not name. Each obstacle is one sentence with the file or the number and the next step.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping

from publisher.checkpoint.encoded import is_encoded
from publisher.checkpoint.experts import BLOCKS, fused_stack
from publisher.checkpoint.header import DTYPE_BITS
from publisher.checkpoint.modules import Module, class_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from publisher.checkpoint.weights import locate

FLOATS = ("BF16", "F16", "F32")
READABLE = f"{', '.join(FLOATS)}, INT4 (compressed-tensors), FP8 and MXFP4 (gpt-oss) weights"
NAME = re.compile(r"[\w.-]+", re.ASCII)


def source_obstacles(checkpoint: Checkpoint) -> Iterator[str]:
    """Everything that stops a plan whatever the recipe says."""
    yield from _documents(checkpoint)
    yield from _shards(checkpoint)
    yield from _architecture(checkpoint)
    yield from _quantized(checkpoint)
    odd = [name for name in checkpoint.modules if not NAME.fullmatch(name)]
    if odd:
        yield (
            f"{len(odd)} tensors have names that no exclude list can spell, such as {odd[0][:80]!r}; module names are "
            "letters, digits, `_`, `-` and `.`"
        )


def _documents(checkpoint: Checkpoint) -> Iterator[str]:
    for message in checkpoint.document_flaws.values():
        yield message.rstrip(".")
    if "config.json" not in checkpoint.files.sizes:
        yield f"{checkpoint.files.label} has no config.json; add the one that belongs to the weights"


def _shards(checkpoint: Checkpoint) -> Iterator[str]:
    if not checkpoint.shards:
        yield f"{checkpoint.files.label} holds no *.safetensors file; this version reads no other weights"
    for shard in checkpoint.shards.values():
        for flaw in shard.flaws[:3]:
            yield f"{shard.shard}: {flaw.message}; copy or download the file again"
        end = max((ref.end for ref in shard.tensors), default=0)
        if end > shard.file_size:
            yield f"{shard.shard} has {shard.file_size:,} of {end:,} bytes; copy or download the file again"
    missing = sorted(set(checkpoint.weight_map.values()) - set(checkpoint.shards))
    if missing:
        yield f"the index names {len(missing)} shards that are missing: {listed(missing)}; download them"
    absent = [n for n, s in checkpoint.weight_map.items() if s in checkpoint.shards and n not in checkpoint.tensors]
    if absent:
        yield f"the index names {len(absent)} tensors that no shard holds: {listed(absent)}; download the shards again"
    unknown = [ref for ref in checkpoint.tensors.values() if ref.dtype not in DTYPE_BITS]
    if unknown:
        first = f"{unknown[0].name[:120]} in {unknown[0].shard} ({unknown[0].dtype[:20]})"
        yield f"{len(unknown):,} tensors have a dtype that is not known here: {first}; copy or download the file again"
    stored = sum(len(shard.tensors) for shard in checkpoint.shards.values())
    if stored > len(checkpoint.tensors):
        yield f"{stored - len(checkpoint.tensors)} tensors lie in two shards; remove the shards the index does not name"


def _architecture(checkpoint: Checkpoint) -> Iterator[str]:
    config = checkpoint.config
    if not config:
        return
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        yield "config.json has no `model_type`; serving engines cannot tell what the weights are"
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        yield "config.json has no `architectures`; serving engines cannot tell what the weights are"


def _quantized(checkpoint: Checkpoint) -> Iterator[str]:
    """Encoded weights that cannot be decoded, by reason, and declarations that the tensors do not bear out."""
    hint = f"this version reads {READABLE}; start from the unquantized model"
    reasons: dict[str, list[str]] = defaultdict(list)
    encoded = [module.name for module in checkpoint.modules.values() if is_encoded(module)]
    blocks = any(fused_stack(module) and BLOCKS in "".join(module.tensors) for module in checkpoint.modules.values())
    for name in encoded:
        try:
            locate(checkpoint, name, headers_only=True)
        except UnreadableWeight as error:
            reasons[error.message.rstrip(".")].append(name)
    for reason, names in list(reasons.items())[:3]:
        yield f"{len(names)} weights are stored quantized and cannot be decoded, such as {names[0]}: {reason}; {hint}"
    declared = checkpoint.quant
    if declared is None:
        return
    what = f"{declared.origin}: {declared.dialect}, {declared.algo or declared.format or 'unnamed'}"
    if not encoded and not blocks:
        yield f"the source is declared quantized ({what}), but none of its weights is; remove the declaration"
    elif declared.raw.get("transform_config"):
        yield f"the source's weights are rotated ({what}, transform_config), which is not undone here; {hint}"


def fused_expert_tensors(module: Module) -> list[str]:
    """Projections, or tensors, that hold all experts of a layer (experts × out × in), as transformers 5 holds them."""
    if module.role != "expert":
        return []
    return list(fused_stack(module)) or [s for s, ref in module.tensors.items() if len(ref.shape) == 3]


def listed(names: Iterable[str], limit: int = 3) -> str:
    """The first names and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(name[:120] for name in names[:limit]) + rest


def by_class(names: Iterable[str], limit: int = 5) -> str:
    """Names summed up by class with counts: `model.layers.*.mlp.up_proj (60)`."""
    counts: Mapping[str, int] = Counter(class_of(name) for name in names)
    return listed([f"{name} ({count})" for name, count in sorted(counts.items())], limit)
