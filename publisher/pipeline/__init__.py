"""The pipeline: plan, quantize, validate, evaluate, card, manifest, push.

`order` says what to do, `stages` does it in a run directory, `start` runs the stages in order and says how it ended.
"""

from publisher.pipeline.order import (
    RUNS,
    Order,
    Prepared,
    base_model,
    licence_advice,
    prepare,
    require_plan,
    require_words,
    with_target,
)
from publisher.pipeline.places import files_at, target_at
from publisher.pipeline.stages import Run
from publisher.pipeline.start import STAGES, dry_run, record, run

__all__ = [
    "RUNS",
    "STAGES",
    "Order",
    "Prepared",
    "Run",
    "base_model",
    "dry_run",
    "files_at",
    "licence_advice",
    "prepare",
    "record",
    "require_plan",
    "require_words",
    "run",
    "target_at",
    "with_target",
]
