"""Which tensor-parallel sizes a checkpoint can be served with, from headers and configuration alone.

Engines split some linear layers by their output axis, some by their input axis and copy others whole; a share of a
quantized input axis must still be whole blocks, heads and experts must divide, and some kernels want larger tiles
still. Names and tiles are rows of `data/architectures/parallel.json` and `data/hardware/tiles.json`. Nothing is
refused here: a layer whose name no table knows counts as copied whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint

TILES, NAMES = "hardware/tiles.json", "architectures/parallel.json"
LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
Form = str | None
FormatOf = Callable[[Module], Form]
_PACKED = frozenset({"U8", "I8", "F4"})
_EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A class of linear layers of one shape and one format.

    Args:
        kind: the modules' class, numbers replaced by `*`.
        example: the name of one of them.
        role: as in the module table.
        form: nvfp4, mxfp4, mxfp8, fp8-block, int4, or None when it is not quantized in blocks.
        out: output features.
        width: input features.
        block: (rows, columns) of weights that share a scale; (1, 1) when not quantized in blocks.
        split: row, column or whole: the axis that engines split.
        count: modules of the class.
        size: bytes of all their tensors.
    """

    kind: str
    example: str
    role: str
    form: Form
    out: int
    width: int
    block: tuple[int, int]
    split: str
    count: int
    size: int

    @property
    def last(self) -> str:
        """The last part of the name, such as `down_proj`."""
        return self.example.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Why one size does not work, or works worse.

    Args:
        kind: block, uneven, heads, kv-heads, expert-tile, expert-pad, mx-expert, padding, tile or coarse.
        subject: the class of modules, or the configuration key, it is about.
        reason: with numbers, no full stop.
        engines: serving engines it concerns.
        backend: the kernels it concerns, None for all of an engine's.
        refuses: whether they stop; otherwise they take a slower path or more memory.
    """

    kind: str
    subject: str
    reason: str
    engines: tuple[str, ...]
    backend: str | None = None
    refuses: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One tensor-parallel size.

    Args:
        size: GPUs the weights are split over.
        limits: what stands against it; empty when nothing does.
        bytes_per_gpu: weights on each GPU.
    """

    size: int
    limits: tuple[Limit, ...]
    bytes_per_gpu: int

    def refused(self, engine: str) -> tuple[Limit, ...]:
        """What makes an engine stop whatever kernels it chooses."""
        return tuple(x for x in self.limits if x.refuses and x.backend is None and engine in x.engines)

    def works(self, engine: str) -> bool:
        """Whether an engine can serve the checkpoint over so many GPUs."""
        return not self.refused(engine)


def tensor_parallel(
    checkpoint: Checkpoint, sizes: Sequence[int] = (), *, format_of: FormatOf | None = None
) -> tuple[Split, ...]:
    """The sizes and what stands against each.

    Args:
        checkpoint: the checkpoint, or a source that will be quantized.
        sizes: the sizes to judge; those of the table (1, 2, 4, 8, 16) when empty.
        format_of: the format a module has or will have; by its tensors when None.
    """
    return splits_of(checkpoint, linears(checkpoint, format_of), sizes or jsonio.data(TILES)["sizes"])


def splits_of(checkpoint: Checkpoint, found: Sequence[Linear], sizes: Sequence[int]) -> tuple[Split, ...]:
    """As `tensor_parallel`, of layers already classed."""
    text = text_config(checkpoint)
    whole = checkpoint.tensor_bytes - sum(x.size for x in found)
    splits = []
    for size in sizes:
        share = sum(x.size if x.split == "whole" else x.size // size for x in found)
        limits = (*_heads(text, size), *(limit for x in found for limit in _limits(x, size)))
        splits.append(Split(size=size, limits=limits, bytes_per_gpu=whole + share))
    return tuple(splits)


def worth(checkpoint: Checkpoint, size: int) -> bool:
    """Whether a model is large enough that somebody would split it so far: a share of a gigabyte or more."""
    worth_bytes: int = jsonio.data(TILES)["worth_bytes"]
    return checkpoint.tensor_bytes // max(size, 1) >= worth_bytes


def text_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The configuration of the language model, where a wrapper holds it."""
    for key in ("text_config", "llm_config"):
        inner = checkpoint.config.get(key)
        if isinstance(inner, Mapping) and inner:
            return inner
    return checkpoint.config


def experts_of(checkpoint: Checkpoint) -> int | None:
    """Routed experts per layer as the configuration says."""
    text = text_config(checkpoint)
    return next((n for n in (_count(text, key) for key in _EXPERTS) if n), None)


# --- the layers ----------------------------------------------------------------------------------------------------


def linears(checkpoint: Checkpoint, format_of: FormatOf | None = None) -> tuple[Linear, ...]:
    """The classes of two-dimensional weights, in name order of their first modules."""
    grouped: dict[tuple[str, tuple[int, ...], str, Form], list[Any]] = {}
    for module in checkpoint.modules.values():
        weight = module.weight
        if weight is None or len(weight.shape) != 2:
            continue
        form = stored_format(module) if format_of is None else format_of(module)
        size = sum(ref.size for ref in module.tensors.values())
        row = grouped.setdefault((module.kind, weight.shape, weight.dtype, form), [module, 0, 0])
        row[1] += 1
        row[2] += size
    return tuple(_linear(module, form, count, size) for (_, _, _, form), (module, count, size) in grouped.items())


def _linear(module: Module, form: Form, count: int, size: int) -> Linear:
    out, width = _shape(module)
    return Linear(
        kind=module.kind,
        example=module.name,
        role=module.role,
        form=form,
        out=out,
        width=width,
        block=_block(module, form, out, width),
        split=_split(module),
        count=count,
        size=size,
    )


def stored_format(module: Module) -> Form:
    """The block format of a module by its tensors; None for plain weights and per-channel formats."""
    weight, scale = module.weight, module.tensors.get("weight_scale")
    if weight is None:
        return None
    if weight.dtype in _PACKED:
        if "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors:
            return "nvfp4"
        dtype = scale.dtype if scale is not None else ""
        return "nvfp4" if dtype == "F8_E4M3" else "mxfp4" if dtype in ("U8", "F8_E8M0") else None
    if weight.dtype == "I32":
        return "int4"
    if weight.dtype.startswith("F8"):
        if scale is not None and scale.dtype in ("U8", "F8_E8M0"):
            return "mxfp8"
        return "fp8-block" if _square(module) is not None else None
    return None


def _square(module: Module) -> tuple[int, ...] | None:
    """The shape of a two-dimensional scale of an FP8 weight that is no column of channel scales."""
    for suffix in ("weight_scale_inv", "weight_scale"):
        ref = module.tensors.get(suffix)
        if ref is not None and len(ref.shape) == 2 and 0 not in ref.shape and ref.shape[1] > 1:
            return ref.shape
    return None


def _shape(module: Module) -> tuple[int, int]:
    weight = module.weight
    if weight is None:
        return 0, 0
    factor = 2 if weight.dtype in _PACKED - {"F4"} else 8 if weight.dtype == "I32" else 1
    return weight.shape[0], weight.shape[1] * factor


def _block(module: Module, form: Form, out: int, width: int) -> tuple[int, int]:
    if form == "fp8-block":
        rows, columns = _square(module) or (1, 1)
        return _span(out, rows), _span(width, columns)
    if form == "int4":
        scale = module.tensors.get("weight_scale")
        return 1, _span(width, scale.shape[1]) if scale is not None and len(scale.shape) == 2 else 1
    known = jsonio.data(TILES)["blocks"].get(form)
    return 1, known["block"] if known else 1


def _span(length: int, parts: int) -> int:
    """The block length of which `parts` cover a length; exporters use powers of two."""
    if parts < 1 or length < 1:
        return 1
    needed = -(-length // parts)
    return int(1 << (needed - 1).bit_length())


@functools.cache
def _names() -> Mapping[str, str]:
    table = jsonio.data(NAMES)
    return {name: split for split in ("row", "column", "whole") for name in table[split]}


def _split(module: Module) -> str:
    if module.role in jsonio.data(NAMES)["towers"]:
        return "whole"
    return _names().get(module.name.rpartition(".")[2], "whole")


# --- the limits ----------------------------------------------------------------------------------------------------


def _heads(text: Mapping[str, Any], size: int) -> Iterator[Limit]:
    heads, pairs = _count(text, "num_attention_heads"), _count(text, "num_key_value_heads")
    if heads and heads % size:
        reason = f"{heads:,} attention heads do not divide by {size}"
        yield Limit(kind="heads", subject="num_attention_heads", reason=reason, engines=LOADERS)
    own = pairs and heads and pairs < heads and not _count(text, "kv_lora_rank")
    if pairs and own and max(pairs, size) % min(pairs, size):
        reason = f"{pairs:,} key-value heads neither divide by {size} nor into it"
        yield Limit(kind="kv-heads", subject="num_key_value_heads", reason=reason, engines=LOADERS)


def _limits(linear: Linear, size: int) -> Iterator[Limit]:
    yield from _blocks(linear, size)
    if linear.role == "expert":
        yield from _expert(linear, size)
    if size > 1:
        yield from _coarse(linear, size)
    yield from _tiles(linear, size)


def _blocks(linear: Linear, size: int) -> Iterator[Limit]:
    """A share of the input axis must be whole blocks, a share of the output axis whole rows."""
    known = jsonio.data(TILES)["blocks"].get(linear.form)
    if known:
        block, share = known["block"], _share(linear.width, size if linear.split == "row" else 1)
        if share is None or share % block:
            kind, engines = "block", tuple(known["engines"])
            reason = f"{_over('inputs', linear.width, size)}, no multiple of {block}"
            yield Limit(kind=kind, subject=linear.kind, reason=reason, engines=engines)
    judged = linear.split == "column" and linear.form and linear.last not in jsonio.data(NAMES)["heads"]
    if judged and linear.out % size:
        reason = f"{linear.out:,} outputs do not divide by {size}"
        yield Limit(kind="uneven", subject=linear.kind, reason=reason, engines=LOADERS)


def _expert(linear: Linear, size: int) -> Iterator[Limit]:
    """The width of an expert (rows of gate and up) and the hidden size, as the expert kernels want them."""
    tiles = jsonio.data(TILES)
    if linear.split != "column":
        return
    share = _share(linear.out, size) or 0
    told = _over("rows of an expert", linear.out, size)
    row = tiles["cutlass_expert_width"]
    if linear.form in row["formats"] and (not share or share % row["multiple"]):
        reason = f"{told}, no multiple of {row['multiple']}"
        yield _limit("expert-tile", linear, reason, row, backend=row["backend"])
    row = tiles["trtllm_hidden"]
    if linear.form in row["formats"] and linear.width % row["multiple"]:
        reason = f"the hidden size of {linear.width:,} is padded to {_up(linear.width, row['multiple']):,}"
        yield _limit("expert-pad", linear, reason, row, backend="trtllm", refuses=False)
    row = tiles["blocks"]["mxfp8"]
    if linear.form == "mxfp8" and (linear.width % row["block"] or not share or share % row["block"]):
        reason = f"{told}, and both it and the hidden size of {linear.width:,} must be multiples of {row['block']}"
        yield _limit("mx-expert", linear, reason, row, backend=None)
    row = tiles["atom_expert_width"]
    if linear.form in row["formats"] and share and share % row["multiple"]:
        padded = _up(share, row["multiple"])
        reason = f"{told}, padded to {padded:,}: {padded / share:.3g} times the memory"
        yield _limit("padding", linear, reason, row, backend=None, refuses=False)


def _coarse(linear: Linear, size: int) -> Iterator[Limit]:
    """Formats of larger blocks: FP8 in squares, int4 in groups."""
    rows, columns = linear.block
    if linear.form in ("fp8-block", "int4"):
        share = _share(linear.width, size)
        if linear.split == "row" and (share is None or share % columns):
            reason = f"{_over('inputs', linear.width, size)}, no multiple of {columns}"
            yield Limit(kind="coarse", subject=linear.kind, reason=reason, engines=("vllm", "sglang"))
        share = _share(linear.out, size)
        if linear.split == "column" and (share is None or share % rows):
            reason = f"{_over('outputs', linear.out, size)}, no multiple of {rows}"
            yield Limit(kind="coarse", subject=linear.kind, reason=reason, engines=("vllm", "sglang"))


def _tiles(linear: Linear, size: int) -> Iterator[Limit]:
    for row in jsonio.data(TILES)["linear_tiles"]:
        if linear.form not in row["formats"] or linear.role == "expert":
            continue
        out = linear.out // size if linear.split == "column" else linear.out
        width = linear.width // size if linear.split == "row" else linear.width
        if out % row["rows"] or width % row["columns"]:
            reason = f"a share of {out:,} x {width:,} is no multiple of {row['rows']} x {row['columns']}"
            yield _limit("tile", linear, reason, row, backend=row["backend"], refuses=False)


def _limit(
    kind: str, linear: Linear, reason: str, row: Mapping[str, Any], *, backend: str | None, refuses: bool = True
) -> Limit:
    engines = tuple(row["engines"])
    return Limit(kind=kind, subject=linear.kind, reason=reason, engines=engines, backend=backend, refuses=refuses)


def _over(what: str, length: int, size: int) -> str:
    return f"{length:,} {what} over {size} GPUs are {length / size:,.6g}" if size > 1 else f"{length:,} {what}"


def _share(length: int, size: int) -> int | None:
    return None if length % size else length // size


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _count(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and 0 < value < 1 << 40 else None
