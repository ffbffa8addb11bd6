"""`python -m publisher.engines.programs.modelopt_job job.json`: modelopt as a program (docs/job-file.md).

Three steps: calibrate and export into `staging/export`, compare that with plan and source, write the result from both
(`exported.py`). A run that is stopped calibrates again, unless its export was finished.
Refused before anything is loaded: weights that are all zero (modelopt writes NaN scales for them), NaN or infinite
ones, rows that are no whole blocks, and whatever modelopt does not make (other formats, dynamic activations).
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from publisher import __version__, jsonio
from publisher.checkpoint.sidefiles import restore
from publisher.checkpoint.writer import StagedWriter, already_done, clear, disk_errors
from publisher.errors import CheckpointError, EngineError, InterruptedRun, PublisherError
from publisher.formats.spec import FORMATS
from publisher.native.events import Progress, emit
from publisher.native.memory import peak_host_bytes
from publisher.native.surroundings import surroundings

ENGINE, STAGE = "modelopt", "quantize"
BLOCK = FORMATS["nvfp4"].block
INSTALL = (
    "Install it with `pip install 'fp4-publisher[modelopt]'`, or name its interpreter in PUBLISHER_MODELOPT_PYTHON."
)
RESUME = "Run the same command again to go on."


def main(arguments: list[str]) -> int:
    """Run one job file; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        if len(arguments) != 1:
            raise PublisherError("Usage: python -m publisher.engines.programs.modelopt_job JOB.json")
        run(read_job(Path(arguments[0])))
    except (KeyboardInterrupt, BrokenPipeError):
        return _cancelled()
    except PublisherError as error:
        emit(STAGE, "error", message=error.message, hint=error.hint)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the edge of a process: what nobody foresaw becomes its last event
        traceback.print_exc()
        emit(
            STAGE, "error", message=_unforeseen(error), hint="Read engine.log; the engine native needs no model class."
        )
        return EngineError.exit_code
    return 0


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise KeyboardInterrupt


def _cancelled() -> int:
    try:
        emit(STAGE, "cancelled", message="Stopped; a finished export is kept.", hint=RESUME)
    except OSError:
        sys.stdout = None  # whoever started this is gone
    return InterruptedRun.exit_code


def _unforeseen(error: Exception) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"Out of memory: {str(error)[:300] or 'an allocation failed'}; modelopt holds the whole model."
    if "No space left on device" in str(error):
        return "modelopt's export failed: the disk is full."
    return f"modelopt failed: {type(error).__name__}: {str(error)[:500]}"


# --- the job -------------------------------------------------------------------------------------------------------


def read_job(path: Path) -> dict[str, Any]:
    """Read and check a job file.

    Raises:
        PublisherError: naming every problem.
    """
    job = jsonio.load_json(path)
    jsonio.require(job, "job", str(path), hint="Let `publisher quantize` write the job file.")
    problems = list(_job_problems(job))
    if problems:
        raise PublisherError(f"{path}: " + "; ".join(problems) + ".", hint="Change the recipe, or choose native.")
    result: dict[str, Any] = job
    return result


def _job_problems(job: Mapping[str, Any]) -> Iterator[str]:
    if job["engine"] != ENGINE:
        yield f"the job is for the engine {job['engine']!r}, this is {ENGINE!r}"
    able = {"format": ("nvfp4",), "layout": ("modelopt",), "mode": ("max",), "activations": ("calibrated", "none")}
    for key, values in able.items():
        if job[key] not in values:
            yield f"{key} {job[key]!r} is not what this engine does ({', '.join(values)})"
    if _needs_data(job) and not job.get("calibration"):
        yield "calibrated activations and KV scales need `calibration`"


def _needs_data(job: Mapping[str, Any]) -> bool:
    return bool(job["activations"] == "calibrated" or job["kv_cache"] == "fp8")


def run(job: Mapping[str, Any]) -> None:
    """Do what the job says, or go on with it, or see that it is done.

    Raises:
        PublisherError: of the class whose exit code docs/job-file.md names.
    """
    output, staging = Path(job["output"]), Path(job["staging"])
    scratch, mark = staging / "export", staging / "export.json"
    if already_done(output, job["plan_digest"]):
        _tidy(staging)
        emit(STAGE, "skip", message=f"{output} is complete already.")
        return
    started = time.monotonic()
    _require_libraries()
    from publisher.native.source import SourceTensors

    source = SourceTensors(Path(job["source"]))
    made = _finished_export(mark, job)
    if made is None:
        _refuse_unfit(source, job)
        shutil.rmtree(scratch, ignore_errors=True)
        with disk_errors(staging, 0):
            scratch.mkdir(parents=True)
            made = _make_export(job, scratch)
            jsonio.write_atomic(mark, jsonio.dump_json(made))
    record = _finish(job, source, scratch, made, started)
    _tidy(staging)
    emit(STAGE, "done", message=f"{output} is complete.", weight_error=record["weight_error"]["overall"])


def _finished_export(mark: Path, job: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was noted beside a finished export of this very plan."""
    if not mark.is_file():
        return None
    made = jsonio.load_json(mark)
    if not isinstance(made, dict) or made.get("plan_digest") != job["plan_digest"]:
        return None
    emit(STAGE, "log", message="The model was calibrated and exported before; going on from there.")
    return made


def _tidy(staging: Path) -> None:
    shutil.rmtree(staging / "export", ignore_errors=True)
    (staging / "export.json").unlink(missing_ok=True)
    clear(staging)


def _require_libraries() -> None:
    for name, distribution in (("torch", "torch"), ("transformers", "transformers"), ("modelopt", "nvidia-modelopt")):
        try:
            importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            raise EngineError(f"The engine modelopt needs {name}, which is not installed here.", hint=INSTALL) from None
    version = importlib.metadata.version("nvidia-modelopt")
    if not version.startswith("0.47."):
        raise EngineError(f"nvidia-modelopt {version} is installed; this program is made for 0.47.", hint=INSTALL)


# --- before --------------------------------------------------------------------------------------------------------


def _refuse_unfit(source: Any, job: Mapping[str, Any]) -> None:
    """Find what modelopt would only fail on hours later, or not notice; reads every weight to be quantized once."""
    from publisher.native import kernels
    from publisher.native.source import TORCH_DTYPES

    refs = {module: source.refs.get(f"{module}.weight") for module in job["quantize"]}
    problems = [f"{module} has no weight in the source" for module, ref in refs.items() if ref is None]
    for ref in filter(None, refs.values()):
        if ref.dtype not in TORCH_DTYPES or len(ref.shape) != 2 or ref.shape[1] % BLOCK or not ref.elements:
            problems.append(f"{ref.name}, {ref.dtype} of shape {list(ref.shape)}, is no matrix of blocks of {BLOCK}")
    _refuse(problems, "Keep these modules in the recipe.")
    progress = Progress(STAGE, sum(ref.size for ref in refs.values()), "bytes")
    largest: dict[str, float] = {}
    for module, ref in refs.items():
        largest[module] = float(kernels.largest(kernels.block_amax(source.load(ref), BLOCK)))
        progress.add(ref.size, step="examine", tensor=ref.name)
    broken = [
        f"{refs[m].name} holds NaN or infinite values" for m, value in largest.items() if not value < float("inf")
    ]
    _refuse(broken, "Download the shard again; if they are really in the model, keep the module in the recipe.")
    group_of = {member: members for members in job["groups"].values() for member in members}
    zero = [
        f"{refs[module].name} is all zero"
        for module in largest
        if not any(largest.get(member, 0.0) for member in group_of.get(module, (module,)))
    ]
    _refuse(zero, "modelopt would write NaN scales for it; keep the module in the recipe, or use the engine native.")


def _refuse(problems: list[str], hint: str) -> None:
    if problems:
        more = f" (and {len(problems) - 3:,} more)" if len(problems) > 3 else ""
        raise CheckpointError("; ".join(problems[:3]) + f"{more}.", hint=hint)


# --- modelopt ------------------------------------------------------------------------------------------------------


def _make_export(job: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    """Load, calibrate, export; what a card wants to know about it."""
    emit(STAGE, "start", message="Loading torch, transformers and modelopt.", modules=len(job["quantize"]))
    warnings.filterwarnings("ignore", message=".*is not tested with current version of modelopt.*")
    from publisher.engines.programs import modelopt_model as library

    sequences, calibration = _calibration(job, library)
    model = library.load(Path(job["source"]), job["device"])
    emit(STAGE, "log", message=f"{type(model).__name__} loaded on {model.device}.", device=str(model.device))
    calibrated = job["activations"] == "calibrated"
    config = library.rules(model, job["quantize"], activations=calibrated, kv_cache=job["kv_cache"])
    model, tokens = library.quantize(model, config, sequences, job["quantize"] if calibrated else ())
    unseen = sorted(name for name, count in tokens.items() if not count)
    if unseen:
        message = f"{len(unseen):,} modules saw no token of the calibration data, first {unseen[0]}."
        emit(STAGE, "warning", message=message, modules=unseen[:100])
    emit(STAGE, "log", message="Exporting with modelopt's own exporter.")
    library.export(model, scratch, job["shard_size"])
    return {
        "plan_digest": job["plan_digest"],
        "versions": _versions(),
        "environment": _surroundings(),
        "device": _device(model),
        "calibration": calibration,
        "tokens": tokens,
    }


def _calibration(job: Mapping[str, Any], library: Any) -> tuple[list[list[int]], dict[str, Any] | None]:
    if not _needs_data(job):
        return [], None
    from publisher.native import samples as texts

    asked = job["calibration"]
    drawn = texts.draw(Path(asked["data"]), asked["samples"], asked["seed"])
    tokenizer = library.load_tokenizer(Path(job["source"]))
    sequences = list(texts.token_ids(drawn, tokenizer, asked["sequence_length"]))
    if not sequences:
        raise PublisherError(f"{asked['data']} gives no token to calibrate on.", hint="Give a file with text in it.")
    if drawn.available < asked["samples"]:
        message = f"The calibration data holds {drawn.available:,} samples, {asked['samples']:,} were asked for."
        emit(STAGE, "warning", message=message)
    return sequences, {
        "data": Path(asked["data"]).name,
        "sha256": drawn.sha256,
        "samples": len(sequences),
        "tokens": sum(map(len, sequences)),
        "sequence_length": asked["sequence_length"],
        "seed": asked["seed"],
    }


def _versions() -> dict[str, str]:
    names = {"torch": "torch", "transformers": "transformers", "modelopt": "nvidia-modelopt"}
    found = {name: importlib.metadata.version(distribution) for name, distribution in names.items()}
    return {"publisher": __version__, "python": platform.python_version(), **found}


def _surroundings() -> dict[str, Any]:
    import torch

    return surroundings(["fp4-publisher", "nvidia-modelopt", "transformers"], torch)


def _device(model: Any) -> dict[str, Any]:
    import torch

    device = model.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        memory = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        return {"kind": str(device), "name": name, "gpus": torch.cuda.device_count(), "peak_memory": memory}
    return {"kind": str(device), "name": f"CPU ({torch.get_num_threads()} threads)", "peak_memory": None}


# --- after ---------------------------------------------------------------------------------------------------------


def _finish(
    job: Mapping[str, Any], source: Any, scratch: Path, made: Mapping[str, Any], started: float
) -> dict[str, Any]:
    """Compare the export with plan and source, write the result, give it its name."""
    from publisher.engines.programs import exported
    from publisher.native.quantize import weight_errors

    export = exported.read_export(scratch)
    activations, kv_cache = job["activations"] == "calibrated", job["kv_cache"] == "fp8"
    found = exported.compare(export, source, job["quantize"], activations=activations, kv_cache=kv_cache)
    linear = [name.removesuffix(".weight") for name, ref in source.refs.items() if len(ref.shape) == 2]
    wrong, notes = exported.declaration_differences(export, job["quantization_config"], linear)
    if found.problems or wrong:
        raise EngineError(
            "modelopt's export is not what was planned: " + "; ".join([*found.problems, *wrong]) + ".",
            hint=f"The export is kept in {scratch}; the engine native may do it.",
        )
    for message in _remarks(found, notes):
        emit(STAGE, "log", message=message)
    staging, digest = Path(job["staging"]), job["plan_digest"]
    layout = exported.layout(found, source, job["shard_size"])
    with StagedWriter(staging, Path(job["output"]), layout, plan_digest=digest) as writer:
        sums = exported.write(found, export, source, writer)
        side_files = restore(Path(job["source"]), writer.files, job["quantization_config"], job.get("hf_quant_config"))
        record = {
            "schema": 1,
            "engine": ENGINE,
            "format": job["format"],
            "mode": job["mode"],
            "versions": made["versions"],
            "environment": made.get("environment"),
            "device": {key: made["device"][key] for key in ("kind", "name", "gpus") if key in made["device"]},
            "seconds": round(time.monotonic() - started, 3),
            "peak_memory": {
                "host": peak_host_bytes(),
                "device": made["device"]["peak_memory"],
            },
            "calibration": made["calibration"],
            "activation_statistics": exported.activation_statistics(export, found, made["tokens"]) or None,
            "weight_error": weight_errors(sums),
            "declaration_differences": notes,
            "restored_tensors": found.restored,
            "carried_tensors": found.carried,
            "side_files": side_files,
            "shards": {name: {"size": e["size"], "sha256": e["sha256"]} for name, e in sorted(writer.finished.items())},
        }
        jsonio.write_atomic(staging / "quantize.json", jsonio.dump_json(record))
        writer.finish(record)
    return record


def _remarks(found: Any, notes: list[str]) -> Iterator[str]:
    yield from notes
    if found.restored:
        yield f"{len(found.restored):,} tensors keep the source's dtype, first {found.restored[0]}."
    if found.carried:
        yield f"{len(found.carried):,} tensors the model class lacks come from the source, first {found.carried[0]}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
