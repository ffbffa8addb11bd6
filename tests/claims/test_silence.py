"""Cards in the manner of several publishers whose every claim is true, or about something else: nothing is said."""

from __future__ import annotations

import pytest

from tests.claims.conftest import Lint, config

LIKE_NVIDIA = """
**Model Developer:** Tiny Lab

### Description:
The Tiny NVFP4 model is the quantized version of tiny/tiny, an auto-regressive language model with an optimized
transformer architecture. It is quantized with NVIDIA Model Optimizer v0.47.0. Ready for commercial use.

## Third-Party Community Consideration
This model is not owned or developed by NVIDIA. This model has been developed and built to a third-party's requirements
for this application and use case; see link to Non-NVIDIA (tiny) Model Card.

### License/Terms of Use:
Apache-2.0

## Model Architecture:
**Architecture Type:** Transformers <br>
**Network Architecture:** LlamaForCausalLM <br>
**Number of Model Parameters:** 0.07M

## Input:
**Other Properties Related to Input:** Context length up to 4K

## Software Integration:
**Supported Hardware Microarchitecture Compatibility:** NVIDIA Blackwell <br>
**Preferred Operating System(s):** Linux

## Post Training Quantization
This model was obtained by quantizing the weights and activations of tiny/tiny to NVFP4 data type, ready for inference
with TensorRT-LLM. Only the weights and activations of the linear operators within transformer blocks are quantized.
This optimization reduces the number of bits per parameter from 16 to 4, reducing the disk size and GPU memory
requirements by approximately 3.3x.

## Evaluation
| Precision | MMLU Pro | GPQA Diamond | HLE | AIME 2025 |
|---|---|---|---|---|
| BF16 | 0.85 | 0.81 | 0.15 | 0.88 |
| NVFP4 | 0.84 | 0.80 | 0.14 | 0.88 |

> Baseline: tiny. Benchmarked with temperature=0.6, top_p=0.95, max num tokens 128000. Context length 131072 was used
> while evaluating.
"""
LIKE_AMD = """
# Model Overview
- **Model Architecture:** LlamaForCausalLM
  - **Input:** Text
- **Supported Hardware Microarchitecture:** AMD MI350/MI355
- **ROCm**: 7.0
- **Preferred Operating System(s):** Linux
- **Inference Engine:** vLLM
- **Model Optimizer:** AMD-Quark (V0.11.2)
  - **Weight quantization:** OCP MXFP4, Static
  - **Activation quantization:** OCP MXFP4, Dynamic
- **Calibration Dataset:** Pile

This model was built with tiny by applying AMD-Quark for MXFP4 quantization.

# Model Quantization
```
exclude_layers="*self_attn* *mlp.gate lm_head"
python3 quantize_quark.py --model_dir $MODEL_DIR --quant_scheme w_mxfp4_a_mxfp4 --num_calib_data 128 \\
    --exclude_layers $exclude_layers --kv_cache_dtype fp8
```

# Evaluation
| Benchmark | tiny | tiny-MXFP4 (this model) | Recovery |
|---|---|---|---|
| AIME24 | 78.00 | 69.67 | 89.32% |
| GSM8K | 94.24 | 94.23 | 99.99% |
| WikiText | 3.42 | 3.45 | |

# License
Modifications Copyright (c) 2025 Advanced Micro Devices, Inc. All rights reserved.
"""
LIKE_RED_HAT = """
## Model Overview
- **Model Architecture:** LlamaForCausalLM
- **Model Optimizations:**
  - **Weight quantization:** FP4
  - **Activation quantization:** FP4
- **Release Date:** 9/17/2025
- **Version:** 1.0

### Model Optimizations
This model was obtained by quantizing the weights and activations of tiny to FP4 data type, ready for inference with
vLLM. This optimization reduces the number of bits per parameter from 16 to 4, reducing the disk size and GPU memory
requirements by approximately 75%. Only the weights and activations of the linear operators within transformers blocks
are quantized. The original model needs 140 GB on 2 GPUs of 80 GB each.

```python
recipe = QuantizationModifier(targets="Linear", scheme="NVFP4", ignore=["lm_head"])
```

<table><tr><td>MMLU (5-shot)</td><td>79.4</td><td>78.1</td><td>98.3%</td></tr></table>

| Category | Metric | tiny (BF16) | tiny NVFP4 | Recovery |
|---|---|---|---|---|
| OpenLLM V1 | ARC-Challenge (Acc-Norm, 25-shot) | 72.18 | 71.42 | 98.94 |
| | GSM8K (Strict-Match, 5-shot) | 94.01 | 92.80 | 98.71 |
| | **Average** | **83.10** | **82.11** | **98.81** |
| OpenLLM V2 | IFEval (0-shot) | 90.89 | 90.64 | 99.72 |
| | BBH (3-shot) | 69.72 | 68.40 | 98.10 |
| | **Average Score** | **80.30** | **79.52** | **99.03** |

All 2 layers of the network keep their norms in BF16; about 95% recovery is usual for such models.
"""


@pytest.mark.parametrize(
    ("text", "base"),
    [(LIKE_NVIDIA, "llama-nvfp4"), (LIKE_AMD, "llama-mxfp4"), (LIKE_RED_HAT, "llama-ct-nvfp4")],
    ids=["nvidia", "amd", "red hat"],
)
def test_a_true_card_of_another_publisher_is_left_alone(lint: Lint, text: str, base: str) -> None:
    assert [d.message for d in lint(text, base, edit=config(max_position_embeddings=4096))] == []
