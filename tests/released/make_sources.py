"""Make the two small sources that vendors' tools quantize: a slice of a real model, and a random Kimi-shaped one.

Run in the development environment: `python make_sources.py SMOLLM2_FOLDER OUT`. The slice keeps real weights (the
upper left corner of two layers), so that their statistics are those of a language model.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM, LlamaConfig, LlamaForCausalLM

HIDDEN, WIDTH, VOCAB = 128, 256, 256


def beside(folder: Path) -> None:
    """The files a repository has beside its weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"t{n}": n for n in range(VOCAB)}, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0", eos_token="t2").save_pretrained(folder)
    (folder / "LICENSE").write_bytes(b"A licence\r\nof two lines.\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A small source\n")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}\n")


def slice_of(real: Path, folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(real, dtype=torch.bfloat16)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        vocab_size=VOCAB,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        eos_token_id=2,
        bos_token_id=1,
        rope_theta=100000.0,
    )
    small: Any = LlamaForCausalLM(config).to(torch.bfloat16)
    big = model.state_dict()
    for name, tensor in small.state_dict().items():
        original = big["model.embed_tokens.weight"] if name == "lm_head.weight" else big[name]
        tensor.copy_(original[tuple(slice(0, n) for n in tensor.shape)])
    small.save_pretrained(folder, max_shard_size="400KB")
    beside(folder)


def kimi_shaped(folder: Path) -> None:
    torch.manual_seed(5)
    config = DeepseekV3Config(
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        moe_intermediate_size=64,
        num_hidden_layers=3,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
        first_k_dense_replace=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        q_lora_rank=64,
        kv_lora_rank=64,
        qk_nope_head_dim=32,
        qk_rope_head_dim=32,
        v_head_dim=32,
        vocab_size=VOCAB,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        eos_token_id=2,
        bos_token_id=1,
    )
    model: Any = DeepseekV3ForCausalLM(config).to(torch.bfloat16)
    for layer in model.model.layers[1:]:
        layer.mlp.gate.e_score_correction_bias = layer.mlp.gate.e_score_correction_bias.float()
    model.save_pretrained(folder, max_shard_size="400KB")
    beside(folder)


if __name__ == "__main__":
    out = Path(sys.argv[2])
    shutil.rmtree(out, ignore_errors=True)
    slice_of(Path(sys.argv[1]), out / "slice")
    kimi_shaped(out / "kimi")
