"""Weights of a source that are stored in INT4 or FP8, and what a checkpoint made from them does not take over.

Such a weight counts here as the BF16 matrix it stands for: `weight`, decoded as the producer's own library does
(`weights.locate`). Its packed values, its scales and what was measured for its activations belong to the source's own
quantization and have no meaning beside a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.stored import StoredWeight, UnreadableWeight
from publisher.checkpoint.weights import locate

ENCODED = ("I8", "I32", "U32", "U8", "F4", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
DECODABLE = frozenset({"I32", "F8_E4M3"})
DECODED = "BF16"
NAMES = {"int4": "INT4", "fp8": "FP8", "mxfp4": "MXFP4"}
SUPERSEDED = frozenset(
    {
        "weight",
        "weight_packed",
        "weight_scale",
        "weight_scale_inv",
        "weight_shape",
        "input_scale",
        "input_zero_point",
        "output_scale",
        "k_scale",
        "v_scale",
        "q_scale",
    }
)


def is_encoded(module: Module) -> bool:
    """Whether a module's weight is stored in fewer bits than it is computed in."""
    weight = module.weight
    return weight is not None and weight.dtype in ENCODED


def encoded_weights(checkpoint: Checkpoint, *, headers_only: bool = False) -> Iterator[tuple[Module, StoredWeight]]:
    """Every encoded weight that can be decoded, in name order; U8 payloads, results of this kind of work, are left out.

    Args:
        checkpoint: where to look.
        headers_only: read no tensor; INT4 rows then count as whole words.

    Raises:
        UnreadableWeight: one cannot be decoded; the message names it.
    """
    for module in checkpoint.modules.values():
        weight = module.weight
        if weight is None or not DECODABLE & {weight.dtype, module.tensors.get("weight_packed", weight).dtype}:
            continue
        try:
            if "weight" in module.tensors and "weight_packed" in module.tensors:
                raise UnreadableWeight("it is stored twice, packed and unpacked")
            yield module, locate(checkpoint, module.name, headers_only=headers_only)
        except UnreadableWeight as error:
            raise UnreadableWeight(
                f"{module.name} cannot be decoded: {error.message.rstrip('.')}.",
                hint="Fetch the source again, or start from the unquantized model.",
            ) from error


def decoded_ref(stored: StoredWeight) -> TensorRef:
    """The matrix a weight stands for, at the place of its payload; its size is that of the payload."""
    ref = stored.ref
    return TensorRef(f"{stored.name}.weight", DECODED, (stored.rows, stored.columns), ref.shard, ref.begin, ref.end)


def decoded_size(stored: StoredWeight) -> int:
    """Bytes of the matrix a weight stands for."""
    return stored.rows * stored.columns * DTYPE_BITS[DECODED] // 8
