"""NU: numbers against the source, tensor by tensor: what was copied, and how far each packed weight is from its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Compared, Pruned, Untouched

# Relative RMSE by format: beyond the first a look is due, beyond the second no rounding to four bits explains it.
# Measured on normal, Laplace and Student-t weights and on a grid of four-bit integers: 0.074 to 0.104 for NVFP4,
# 0.106 to 0.132 for MXFP4, up to 0.172 for MXFP4 with scale mode ceil; FP8 per tensor stays below 0.04.
WINDOWS = {"nvfp4": (0.13, 0.2), "mxfp4": (0.16, 0.2), "fp8": (0.06, 0.12), "int4": (0.2, 0.3)}
CEIL = (0.18, 0.22)
COSINE = 0.985


def _at(compared: Compared) -> dict[str, Any]:
    ref = compared.module.ref
    return {"file": ref.shard, "tensor": ref.name}


def _seen(compared: Compared) -> str:
    """How much an answer rests on."""
    if compared.whole:
        return f"all {compared.weights:,} weights"
    return f"{compared.looked:,} of {compared.weights:,} weights"


@rule("NU01", "changed-unquantized-tensor", severity=ERROR, engines=ENGINES)
def changed_unquantized_tensor(tensor: Untouched) -> Iterator[Found]:
    """A tensor that was not quantized is not the source's: other values, another shape, or all zeros.

    Why: norms, embeddings, routers and biases are to be copied; a tool that loads and saves them may round, reorder
    or lose them (offloaded weights are saved as zeros), and every engine computes with what it finds.
    Fix: copy the tensor from the source; a narrower dtype is judged by the values it can hold.
    Seen: NVIDIA/Model-Optimizer issue 157 and PR 1194 (offloaded weights lost on export).
    """
    where: dict[str, Any] = {"file": tensor.ref.shard, "tensor": tensor.ref.name}
    if tensor.misshapen:
        yield Found(f"{tensor.ref.name} has another shape than in the source: {tensor.flaw}; copy it.", **where)
    elif tensor.zeroed:
        message = f"{tensor.ref.name} is all zero, the source's is not; copy it from the source."
        yield Found(message, **where)
    elif tensor.different:
        place = list(tensor.first or ())
        message = (
            f"{tensor.different:,} of {tensor.elements:,} elements of {tensor.ref.name} are not the source's, the "
            f"first at {place}; copy the tensor."
        )
        yield Found(message, **where, index=tensor.first)


@rule("NU04", "large-error", severity=ERROR, engines=ENGINES)
def large_error(compared: Compared) -> Iterator[Found]:
    """A packed weight is farther from its source than rounding to four bits explains.

    Why: wrong scales, a wrong fusion group, transposed or reordered rows and mixed-up layers all load without an
    error and compute something else.
    Fix: quantize the layer again from this source; if it was changed on purpose (pruned, trained on), say so in a
    waiver.
    Seen: huggingface/transformers PR 46763 (weights up to twice too large, shapes valid);
    ml-explore/mlx-lm PR 679 (expert matrices the wrong way round).
    """
    explained = compared.cause in ("swapped", "other", "order") or compared.own == 0
    if not compared.comparable or explained:
        return
    warn, bad = CEIL if compared.verdict.maker == "ceil" else WINDOWS[compared.format]
    error, cosine = compared.rel_rmse, compared.cosine
    if error <= warn and (cosine >= COSINE or compared.format == "int4"):
        return
    factor = compared.product / compared.norm
    scaled = f", as if multiplied by {factor:.4g}" if compared.cause == "scaled" else ""
    message = (
        f"{compared.name} differs from the source by {error:.3g} of its norm, cosine {cosine:.4f}{scaled} "
        f"({_seen(compared)}); {compared.format} leaves up to {warn:g}. Quantize it again from the source."
    )
    severe = error > bad and not compared.pruned  # who prunes moves the weights that are left
    yield Found(message, **_at(compared), severity=ERROR if severe else WARNING)


@rule("NU05", "swapped-nibbles", severity=ERROR, engines=ENGINES)
def swapped_nibbles(compared: Compared) -> Iterator[Found]:
    """The two codes of each byte are in the wrong order: the weight fits its source only with nibbles exchanged.

    Why: all loaders take the even element from the low nibble; swapped, neighbours are exchanged and the output is
    noise.
    Fix: pack the even element into the low nibble and export again.
    Seen: sgl-project/sglang PR 23625 (noise instead of images).
    """
    if compared.cause == "swapped":
        message = (
            f"{compared.name} fits its source only with the nibbles of each byte exchanged (as stored it differs by "
            f"{compared.rel_rmse:.3g} of the norm); pack the even element into the low nibble."
        )
        yield Found(message, **_at(compared))


@rule(
    "NU06",
    "worse-than-max",
    severity=WARNING,
    scope=Scope("weight with block scales other than max", lambda compared: compared.plain_error is not None),
)
def worse_than_max(compared: Compared) -> Iterator[Found]:
    """Searched block scales give a larger error than the plain ones made from each block's maximum.

    Why: a search over scales (MSE, four-over-six) can only win if it is done on these weights; a larger error shows
    scales of other weights or another global scale.
    Fix: calibrate again on these weights, or use mode max.
    Seen: modelopt 0.47 keeps the candidate of least error per block (`calib/mse.py`).
    """
    plain = compared.plain_error
    if plain is not None and plain < 1 - 1e-3 and compared.cause is None:
        message = (
            f"The block scales of {compared.name} leave {1 / plain:.3g} times the squared error of plain max scales "
            f"({compared.verdict.blocks:,} blocks sampled); calibrate again, or use mode max."
        )
        yield Found(message, **_at(compared))


@rule(
    "NU08",
    "broken-pruning",
    severity=ERROR,
    scope=Scope("declared paired 4:8 pruning", lambda _: True),
)
def broken_pruning(pruned: Pruned) -> Iterator[Found]:
    """A weight declared pruned 4 of 8 in pairs keeps more than two of four neighbouring pairs.

    Why: kernels for this sparsity keep two pairs of every four and drop the others, so what is left over is lost;
    dense kernels gain nothing.
    Fix: prune again before quantizing, or withdraw the claim.
    Seen: NVIDIA/cutlass `sm1xx_sparse_config.inl` (four-bit elements are kept in pairs).
    """
    ref = pruned.module.ref
    if pruned.flaw is not None:
        message = f"The pruning of {pruned.module.name} cannot be checked: {pruned.flaw}."
        yield Found(message, file=ref.shard, tensor=ref.name, severity=WARNING)
    elif pruned.dense:
        message = (
            f"{pruned.dense:,} of {pruned.groups:,} groups of eight in {pruned.module.name} keep more than two pairs, "
            f"the first at {list(pruned.first or ())}; prune it again or withdraw the claim."
        )
        yield Found(message, file=ref.shard, tensor=ref.name, index=pruned.first)


@rule("NU09", "dead-weight", severity=WARNING)
def dead_weight(compared: Compared) -> Iterator[Found]:
    """A weight that is all zero in the source was quantized without a word.

    Why: the largest magnitude 0 has no scale: modelopt writes global scale 0 and NaN block scales for it, and NaN
    spreads to every token; even where the zeros survive, a dead layer in the source wants a look.
    Fix: keep the layer unquantized, or give it a scale by hand; compare the source with its own upstream.
    Seen: modelopt 0.47 `NVFP4QTensor.quantize` on an all-zero weight.
    """
    if not compared.dead:
        return
    lost = compared.own != 0
    became = "NaN" if not compared.finite else "not zero" if lost else "zero again"
    message = f"{compared.name} is all zero in the source ({_seen(compared)}) and {became} here; keep it unquantized."
    broken = lost or not compared.finite
    yield Found(message, **_at(compared), severity=ERROR if broken else WARNING, engines=ENGINES if broken else None)


@rule("NU11", "other-weight", severity=ERROR, engines=ENGINES)
def other_weight(compared: Compared) -> Iterator[Found]:
    """A packed weight is that of another module: another expert, another layer, or gate instead of up.

    Why: a permutation or an off-by-one in a conversion keeps every shape and name valid; tokens are routed to
    experts that were trained for others.
    Fix: correct the mapping of names and convert again.
    Seen: vllm-project/vllm issue 46641 (gate and up rows of a gpt-oss derivative mixed up).
    """
    if compared.cause == "other":
        message = f"{compared.name} holds the weight of the source's {compared.twin}; correct the mapping and convert."
        yield Found(message, **_at(compared))


@rule("NU12", "lost-weight", severity=ERROR, engines=ENGINES)
def lost_weight(compared: Compared) -> Iterator[Found]:
    """A packed weight is all zero while its source is not.

    Why: weights that were offloaded during the export, or never loaded, are saved as zeros; the layer is gone and
    nothing complains.
    Fix: export again with all weights in memory, or file to file.
    Seen: NVIDIA/Model-Optimizer issue 157, PR 1194.
    """
    if compared.finite and compared.own == 0 and not compared.dead and compared.sound:
        message = f"{compared.name} is all zero, the source is not ({_seen(compared)}); export the layer again."
        yield Found(message, **_at(compared))


@rule("NU13", "codes-before-rounding", severity=WARNING, engines=ENGINES)
def codes_before_rounding(compared: Compared) -> Iterator[Found]:
    """The codes were computed with the block scale before it was rounded, not with the one that is stored.

    Why: the stored scale is up to 6 % (NVFP4) or a factor of two (MXFP4) away from it, and dequantization uses the
    stored one: extra noise at best, weights up to twice too large at worst.
    Fix: divide the weights by the rounded scale.
    Seen: NVIDIA/Model-Optimizer PR 2243; huggingface/transformers PR 46763.
    """
    verdict = compared.verdict
    if verdict.before_rounding and compared.cause in (None, "scaled"):
        message = (
            f"In {verdict.wrong_codes:,} of {verdict.blocks:,} sampled blocks of {compared.name} the codes belong to "
            "the block scale before rounding; divide by the stored scale."
        )
        severe = compared.format == "mxfp4" or (math.isfinite(compared.rel_rmse) and compared.rel_rmse > 0.2)
        yield Found(message, **_at(compared), severity=ERROR if severe else WARNING)
