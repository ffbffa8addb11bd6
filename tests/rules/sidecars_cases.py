"""SD: edits of good checkpoints with exactly the codes they raise, and oddities that raise nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.builders.edits import POINTER, Edit, config, each, file, later, listed
from tests.builders.tiny import SOURCE_CARD, Tiny
from tests.rules.cases import Case

TOKEN = "hf_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"  # of the right form, and of nobody
TOKENIZER, GENERATION = "tokenizer_config.json", "generation_config.json"


def alone(name: str, data: bytes) -> dict[str, Any]:
    """An edit judged without the source: what the source says alike is the source's own."""
    return {"edit": file(name, data), "evidence": {"source": None}}


def tokenizer(**keys: Any) -> bytes:
    return json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **keys}).encode()


def side(name: str, value: Any) -> Edit:
    return file(name, json.dumps(value).encode())


def in_folder(name: str) -> Edit:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())

    return later(change)


def made_by(version: str) -> Edit:
    def change(folder: Path) -> None:
        path = folder / "publish.json"
        path.write_text(path.read_text().replace('{"name": null, "version": null}', json.dumps(engine)))

    engine = {"name": "modelopt", "version": version}
    return listed(change)


def mapped(**auto_map: Any) -> Edit:
    return config(auto_map=auto_map)


def gguf(tiny: Tiny) -> None:
    tiny.files["tokenizer.model"] = b"GGUF" + bytes(60)


CASES = [
    Case("SD01", "rewritten", side("tokenizer.json", {"version": "1.0"}), "SD01", place="tokenizer.json"),
    Case("SD01", "lost", file("tokenizer.json", None), "SD01", place="tokenizer.json"),
    Case("SD02", "no-file", mapped(AutoModel="modeling_lost.Tiny"), "CF25 SD02", place="modeling_lost.py"),
    Case("SD02", "no-class", mapped(AutoModel="modeling_tiny.Other"), "CF25 SD02", place="modeling_tiny.py"),
    Case("SD02", "no-module", mapped(AutoTokenizer=[None, "../up.Tiny"]), "CF25 SD02", place="config.json"),
    Case("SD02", "elsewhere", mapped(AutoModel="org/name--modeling.Tiny"), "CF25 SD02w", place="config.json"),
    Case(
        "SD02",
        "import",
        each(mapped(AutoModel="modeling_new.Tiny"), file("modeling_new.py", b"from .lost import x\nclass Tiny: ...\n")),
        "CF25 SD02",
        place="lost.py",
    ),
    Case("SD02", "kimi", file("modeling_tiny.py", None), "SD01 SD02", base="kimi-nvfp4", place="modeling_tiny.py"),
    Case(
        "SD03",
        "beside-quark",
        lambda tiny: setattr(tiny, "hf_quant_config", {"quantization": {"quant_algo": "MXFP4"}}),
        "CF03 CF04 CF27w CF37w SD03",
        base="llama-mxfp4",
        place="hf_quant_config.json",
    ),
    Case("SD04", "overlay", side("quant_cfg.json", {"quant_algo": "FP8"}), "SD04", place="quant_cfg.json"),
    Case("SD04", "dtypes", side("dtypes.json", {}), "SD04w", place="dtypes.json", base="llama-ct-nvfp4"),
    Case("SD05", "notebook", file("try.ipynb", b"{}"), "SD05w", place="try.ipynb"),
    Case("SD05", "settings", file(".env", b"A=1\n"), "SD05", place=".env", base="kimi-mxfp4"),
    Case("SD05", "compiled", file("__pycache__/a.pyc", b"x"), "SD05w", place="a.pyc"),
    Case("SD06", "second-set", in_folder("old/model.safetensors"), "SD06w", place="old/model.safetensors"),
    Case("SD06", "second-index", side("old.safetensors.index.json", {}), "SD06w", place="old.safetensors.index"),
    Case("SD07", "stop-token", **alone(GENERATION, b'{"eos_token_id": [2, 32]}'), raises="SD07w", place=GENERATION),
    Case("SD08", "recipe", file("recipe.yaml", b"m:\n  scheme: MXFP4A16\n"), "SD08w", place="recipe.yaml"),
    Case("SD08", "version", made_by("0.41.0"), "SD08w", place="publish.json"),
    Case("SD09", "token", file("push.py", f'x = 1\nlogin("{TOKEN}")\n'.encode()), "SD09", place="push.py"),
    Case("SD09", "long", file("log.txt", b"\n" * (5 << 20) + TOKEN.encode()), "SD09", place="log.txt"),
    Case(
        "SD09",
        "metadata",
        lambda tiny: setattr(tiny, "metadata", {"format": "pt", "by": TOKEN}),
        "SD09",
        place="model-",
    ),
    Case("SD09", "file-name", file(f"{TOKEN}.txt", b"x"), "SD09"),
    Case("SD09", "signed", file("get.md", b"?X-Amz-Signature=" + b"0123456789abcdef" * 4), "SD09w", place="get.md"),
    Case("SD10", "home", file("train.py", b"x = 1\nopen('/home/mkowalski/x')\n"), "SD10w", place="train.py"),
    Case("SD09", "key", file("notes.md", b"-----BEGIN " + b"OPENSSH PRIVATE KEY-----\n"), "SD09", place="notes.md"),
    Case("SD10", "name-or-path", config(_name_or_path="/home/somebody/models/x"), "CF25 SD10w", place="config.json"),
    Case("SD10", "any-key", side("recipe.json", {"run": {"out": "/workspace/out"}}), "SD10w", place="recipe.json"),
    Case(
        "SD11",
        "internal",
        **alone(TOKENIZER, b'{"tokenizer_class": "TokenizersBackend"}'),
        raises="SD11w",
        place=TOKENIZER,
    ),
    Case("SD11", "changed", side(TOKENIZER, {"tokenizer_class": "LlamaTokenizer"}), "SD01 SD11", place=TOKENIZER),
    Case("SD12", "list", **alone(TOKENIZER, tokenizer(extra_special_tokens=["<a>"])), raises="SD12w", place=TOKENIZER),
    Case(
        "SD12",
        "both-keys",
        **alone(TOKENIZER, tokenizer(extra_special_tokens={"a": "<a>"}, additional_special_tokens=["<b>"])),
        raises="SD12w",
        place=TOKENIZER,
    ),
    Case(
        "SD12",
        "lost",
        file(TOKENIZER, tokenizer()),
        "SD01 SD12",
        source=file(TOKENIZER, tokenizer(additional_special_tokens=["<tool>"])),
        place=TOKENIZER,
    ),
    Case("SD13", "two", **alone(TOKENIZER, tokenizer(chat_template="other")), raises="SD13w", place="chat_template"),
    Case("SD13", "lost", file("chat_template.jinja", None), "SD01 SD13", place="chat_template.jinja"),
    Case("SD13", "changed", file("chat_template.jinja", b"{{ x }}"), "SD01 SD13", place="chat_template.jinja"),
    Case(
        "SD14",
        "other-number",
        **alone(TOKENIZER, tokenizer(eos_token="</s>", added_tokens_decoder={"7": {"content": "</s>"}})),
        raises="SD14w",
        place=GENERATION,
    ),
    Case("SD15", "picture", lambda tiny: None, "SD15w", source=file("figures/a.png", b"PNG"), place="figures/a.png"),
    Case("SD16", "copied", file("README.md", SOURCE_CARD.encode()), "LC03 LC08w LC23w SD16w", place="README.md"),
    Case("SD17", "pointer", file("special_tokens_map.json", POINTER), "CF29 SD17", place="special_tokens_map.json"),
    Case("SD17", "empty", **alone("merges.txt", b""), raises="SD17", place="merges.txt"),
    Case("SD18", "gguf", gguf, "SD18", place="tokenizer.model"),
]

LEGITIMATE: list[tuple[str, str, Edit]] = [
    ("a placeholder for a token", "llama-nvfp4", file("USE.md", b"export HF_TOKEN=hf_" + b"x" * 34 + b"\n")),
    ("the same overlay", "llama-nvfp4", side("quant_cfg.json", {"quant_algo": "NVFP4"})),
    ("a recipe of the declared format", "llama-ct-nvfp4", file("recipe.yaml", b"m:\n  scheme: NVFP4\n")),
    ("code that imports what is there", "kimi-nvfp4", file("extra_tiny.py", b"from .modeling_tiny import Tiny\n")),
    ("a name in a recipe", "llama-nvfp4", side("recipe.json", {"_name_or_path": "tiny/tiny", "data": "/v1/x"})),
    ("the version that made it", "llama-nvfp4", made_by("0.47.0")),
]
