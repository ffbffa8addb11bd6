"""Weight quantization of one tensor: our kernels, our reference and the vendors' libraries beside a memory copy.

Throughput is BF16 bytes in per second; "native" is what the quantizer runs, its error meter included. The copy goes
between two tensors that exist already; it writes as much as it reads, which no quantizer does, so `bytes moved` weighs
a quantizer's read and written bytes against the copy's. The tensors of a set are taken in turn, so that none is in the
caches when its turn comes. A ratio is the median of the rounds' own; beside it stands that of the best rounds, in which
the neighbours worked least. The search for the smallest error stands beside the sweep of all candidates: in the same
vector code, sixteen candidates at a time, and as compiled loops over candidates and weights. INT4 sources are counted
by the BF16 bytes they stand for; what is read of them is a quarter of that and their scales.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import Result, Timing, faster, in_turn, spread

# rows, columns, tensors of a set, rounds
SIZES = {"small": (64, 256, 2, 2), "normal": (2048, 7168, 6, 15)}
THREADS = 2
OUT_PER_IN = {"nvfp4": (0.5 + 1 / 16) / 2, "mxfp4": (0.5 + 1 / 32) / 2}  # bytes written per byte of BF16 read
FORMATS = {"nvfp4": "NVFP4 max", "mxfp4": "MXFP4 even"}
SWEPT = 4  # the MSE sweep gets a quarter of the rows

Work = Callable[[], Any]
Quantize = Callable[[Any], tuple[Any, Any]]  # weight to payload and block scales


def run(size: str, _folder: Path) -> Result:
    """Measure on the CPU with at most two threads, and on the first GPU when torch sees one; writes no file."""
    import torch

    os.environ.setdefault("TORCHAO_FORCE_SKIP_LOADING_SO_FILES", "1")
    warnings.simplefilter("ignore")  # the vendors' about one another's versions
    torch.set_num_threads(min(THREADS, torch.get_num_threads()))  # OMP_NUM_THREADS=1 asks for one
    result = Result()
    result.notes.append(f"torch with {torch.get_num_threads()} threads; numpy code is single-threaded")
    _measure(result, size, "cpu")
    _measure_decoding(result, size)
    _measure_sweep(result, size)
    if torch.cuda.is_available():
        result.notes.append(f"GPU: {torch.cuda.get_device_name(0)}")
        _measure(result, size, "cuda")
    else:
        result.not_run["GPU"] = "torch sees none here"
    return result


def _measure(result: Result, size: str, device: str) -> None:
    import torch

    rows, columns, count, rounds = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    weights = [
        (torch.randn(rows, columns, generator=generator) * 0.02).to(torch.bfloat16).to(device) for _ in range(count)
    ]
    result.notes.append(f"{device}: BF16 [{rows}, {columns}], {count} tensors in turn, {rounds} rounds")
    targets = [torch.empty_like(weight) for weight in weights]
    copies = itertools.cycle(zip(targets, weights, strict=True))
    for form, title in FORMATS.items():
        contenders = dict(_quantizers(form, device, result))
        works: dict[str, Work] = {f"{device} copy": lambda: (pair := next(copies))[0].copy_(pair[1])}
        works |= {f"{device} {title}: {name}": _turns(work, weights) for name, work in contenders.items()}
        if device == "cuda":
            works = {name: _synchronized(work) for name, work in works.items()}
        with torch.inference_mode():
            equal = _same_bytes(contenders, weights[0])
            timings = in_turn(works, rounds, weights[0].nbytes)
        _report(result, timings, f"{device} {title}: ", f"{device} copy", OUT_PER_IN[form], equal)


def _report(
    result: Result,
    timings: Mapping[str, Timing],
    prefix: str,
    copy: str,
    out_per_in: float,
    equal: Mapping[str, bool],
) -> None:
    result.rows += [
        timing.to_json(**({"bytes_as_native": equal[name]} if (name := full.removeprefix(prefix)) in equal else {}))
        for full, timing in timings.items()
    ]
    ours = timings[f"{prefix}native"]
    result.ratios.append(faster(f"{prefix}native / copy", ours, timings[copy]))
    result.ratios.append(_best(f"{prefix}native / copy, best rounds", ours, timings[copy]))
    if f"{prefix}modelopt" in timings:
        result.ratios.append(_best(f"{prefix}native / modelopt, best rounds", ours, timings[f"{prefix}modelopt"]))
    result.ratios.append(
        faster(f"{prefix}native / copy, bytes moved", ours, timings[copy], factor=(1 + out_per_in) / 2)
    )
    result.ratios += [
        faster(f"{prefix}native / {name.removeprefix(prefix)}", ours, timing)
        for name, timing in timings.items()
        if name not in (copy, f"{prefix}native")
    ]


def _best(name: str, ours: Timing, other: Timing) -> dict[str, Any]:
    return spread(name, [min(other.rounds) / min(ours.rounds)], "higher")


def _measure_decoding(result: Result, size: str) -> None:
    """NVFP4 from INT4 in groups of 32, as Kimi K2.x is stored, beside NVFP4 from the BF16 it stands for; same bytes."""
    import numpy as np
    import torch

    from publisher.native import threads
    from publisher.native.kernels import decoders

    rows, columns, count, rounds = SIZES[size]
    random, group = np.random.default_rng(2), 32
    words = [random.integers(-(2**31), 2**31, (rows, columns // 8), dtype=np.int32) for _ in range(count)]
    scales = (np.abs(random.standard_normal((rows, columns // group))) * 0.01).astype(np.float32)
    quantize, chunks = _native("nvfp4"), threads.row_chunks(rows, columns, 1 << 19)

    def decoded(packed: Any) -> Any:
        out = np.empty((rows, columns), np.uint16)
        threads.at_once(chunks, lambda part: decoders.int4_bits(packed[part], scales[part], columns, group, out[part]))
        return torch.from_numpy(out.view(np.int16)).view(torch.bfloat16)

    weights = [decoded(packed) for packed in words]
    works: dict[str, Work] = {
        "cpu NVFP4 max: native, from BF16": _turns(quantize, weights),
        "cpu NVFP4 max: native, from INT4": _turns(lambda packed: quantize(decoded(packed)), words),
        "cpu INT4 to BF16 alone": _turns(lambda packed: (decoded(packed), None), words),
    }
    same = _raw(quantize(decoded(words[0]))[0]) == _raw(quantize(weights[0])[0])
    with torch.inference_mode():
        timings = in_turn(works, rounds, weights[0].nbytes)
    plain, stored = (timings[f"cpu NVFP4 max: native, from {kind}"] for kind in ("BF16", "INT4"))
    read = words[0].nbytes + scales.size * 2
    result.rows += [timings["cpu INT4 to BF16 alone"].to_json()]
    result.rows.append(stored.to_json(bytes_as_native=same, packed_gb_per_s=read / min(stored.rounds) / 1e9))
    result.ratios.append(faster("cpu NVFP4 max: from INT4 / from BF16, bytes it stands for", stored, plain))
    result.ratios.append(_best("cpu NVFP4 max: from INT4 / from BF16, best rounds", stored, plain))


def _measure_sweep(result: Result, size: str) -> None:
    """The search for the block scales of the smallest error beside trying all 126."""
    import torch

    from publisher.native import kernels, threads

    if not kernels.accelerated():
        result.not_run["cpu NVFP4 mse"] = "numba is not installed"
        return
    from benchmarks import sweep

    rows, columns, _, rounds = SIZES[size]
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(max(8, rows // SWEPT), columns, generator=generator) * 0.02).to(torch.bfloat16)
    chunks = threads.row_chunks(weight.shape[0], columns, 1 << 16)
    works = sweep.contenders(weight, lambda work: threads.at_once(chunks, work))
    codes = {name: work().tobytes() for name, work in works.items()}
    prefix = "cpu NVFP4 mse: "
    timings = in_turn({prefix + name: work for name, work in works.items()}, rounds, weight.nbytes)
    ours = timings[f"{prefix}search"]
    for name in works:
        timing = timings[prefix + name]
        equal = {} if timing is ours else {"bytes_as_native": codes[name] == codes["search"]}
        result.rows.append(timing.to_json(**equal))
        if timing is not ours:
            result.ratios.append(faster(f"{prefix}search / {name}", ours, timing))
            result.ratios.append(_best(f"{prefix}search / {name}, best rounds", ours, timing))


def _turns(quantize: Quantize, weights: list[Any]) -> Work:
    turn = itertools.cycle(weights)
    return lambda: quantize(next(turn))


def _synchronized(work: Work) -> Work:
    import torch

    def whole() -> None:
        work()
        torch.cuda.synchronize()

    return whole


def _same_bytes(contenders: Mapping[str, Quantize], weight: Any) -> dict[str, bool]:
    """Which contenders give our payload and block scales; the others' arithmetic differs by design."""
    raw = {name: tuple(_raw(part) for part in quantize(weight)) for name, quantize in contenders.items()}
    return {name: parts == raw["native"] for name, parts in raw.items() if name != "native"}


def _raw(part: Any) -> bytes:
    if hasattr(part, "cpu"):
        import torch

        part = part.cpu().contiguous().view(torch.uint8).numpy()
    return bytes(part.tobytes())


# --- contenders ----------------------------------------------------------------------------------------------------


def _quantizers(form: str, device: str, result: Result) -> Iterator[tuple[str, Quantize]]:
    """Whoever can be imported here; the rest is noted as not run."""
    makers = {
        "native": _native,
        "native without error meter": _native_plain,
        "native without numba": _native_torch,
        "reference (numpy)": _reference,
        "modelopt": _modelopt,
        "compressed-tensors": _compressed_tensors,
        "torchao": _torchao,
    }
    for name, maker in makers.items():
        if device != "cpu" and maker in (_reference, _native_torch):
            continue
        try:
            yield name, maker(form)
        except ImportError as error:
            result.not_run[f"{device} {FORMATS[form]}: {name}"] = str(error)


def _native(form: str, metered: bool = True) -> Quantize:
    from publisher.native import kernels

    def nvfp4(weight: Any) -> tuple[Any, Any]:
        meter = kernels.ErrorMeter.on(weight.device) if metered else None
        amax = kernels.block_amax(weight, kernels.NVFP4_BLOCK)
        return kernels.quantize_nvfp4(weight, amax, kernels.global_scale(kernels.largest(amax)), meter)

    def mxfp4(weight: Any) -> tuple[Any, Any]:
        meter = kernels.ErrorMeter.on(weight.device) if metered else None
        return kernels.quantize_mxfp4(weight, kernels.block_amax(weight, kernels.MXFP4_BLOCK), "even", meter)

    return {"nvfp4": nvfp4, "mxfp4": mxfp4}[form]


def _native_plain(form: str) -> Quantize:
    return _native(form, metered=False)


def _native_torch(form: str) -> Quantize:
    from publisher.native import kernels
    from publisher.native.kernels import portable

    def nvfp4(weight: Any) -> tuple[Any, Any]:
        amax = portable.block_amax(weight, 16)
        scale_2 = kernels.global_scale(kernels.largest(amax))
        return portable.quantize_nvfp4(weight, amax, scale_2, kernels.ErrorMeter.on(weight.device))

    def mxfp4(weight: Any) -> tuple[Any, Any]:
        amax = portable.block_amax(weight, 32)
        return portable.quantize_mxfp4(weight, amax, "even", kernels.ErrorMeter.on(weight.device))

    return {"nvfp4": nvfp4, "mxfp4": mxfp4}[form]


def _reference(form: str) -> Quantize:
    import torch

    from publisher.formats import floats, mxfp4, nvfp4

    def quantize(weight: Any) -> tuple[Any, Any]:
        values = floats.decode(memoryview(weight.view(torch.uint8).numpy()).cast("B"), "BF16", tuple(weight.shape))
        found = nvfp4.quantize(values) if form == "nvfp4" else mxfp4.quantize(values, mode="even")
        return found.payload, found.block_scales

    return quantize


def _modelopt(form: str) -> Quantize:
    from modelopt.torch.quantization.qtensor import MXFP4QTensor, NVFP4QTensor

    def nvfp4(weight: Any) -> tuple[Any, Any]:
        packed, scales, _ = NVFP4QTensor.quantize(weight, 16)
        return packed._quantized_data, scales

    def mxfp4(weight: Any) -> tuple[Any, Any]:
        packed, scales = MXFP4QTensor.quantize(weight, 32)
        return packed._quantized_data, scales

    return {"nvfp4": nvfp4, "mxfp4": mxfp4}[form]


def _compressed_tensors(form: str) -> Quantize:
    from compressed_tensors.compressors.mxfp4 import MXFP4PackedCompressor
    from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
    from compressed_tensors.quantization import preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    scheme = preset_name_to_scheme({"nvfp4": "NVFP4A16", "mxfp4": "MXFP4A16"}[form], ["Linear"])
    compressor: Any = {"nvfp4": NVFP4PackedCompressor, "mxfp4": MXFP4PackedCompressor}[form]

    def quantize(weight: Any) -> tuple[Any, Any]:
        grouped = weight.unflatten(-1, (-1, 16 if form == "nvfp4" else 32))
        low, high = grouped.amin(-1), grouped.amax(-1)
        second = generate_gparam(low.min(), high.max()) if form == "nvfp4" else None
        scales, _ = calculate_qparams(low, high, scheme.weights, global_scale=second)
        state = {"weight": weight, "weight_scale": scales}
        packed = compressor.compress(state | ({"weight_global_scale": second} if form == "nvfp4" else {}), scheme)
        return packed["weight_packed"], packed["weight_scale"]

    return quantize


def _torchao(form: str) -> Quantize:
    import torch
    from torchao.prototype.mx_formats import mx_tensor, nvfp4_tensor  # type: ignore[import-untyped]

    def nvfp4(weight: Any) -> tuple[Any, Any]:
        second = nvfp4_tensor.per_tensor_amax_to_scale(weight.abs().max())
        scales, payload = nvfp4_tensor.nvfp4_quantize(weight, 16, second)
        return payload, scales

    def mxfp4(weight: Any) -> tuple[Any, Any]:
        scales, payload = mx_tensor.to_mx(weight, torch.float4_e2m1fn_x2, 32, mx_tensor.ScaleCalculationMode.EVEN)
        return payload, scales

    return {"nvfp4": nvfp4, "mxfp4": mxfp4}[form]
