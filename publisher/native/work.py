"""What a job comes to when it meets its source: the same in every process that takes part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from publisher.checkpoint import statistics
from publisher.checkpoint.layout import ShardLayout
from publisher.checkpoint.statistics import InputRanges, Statistics
from publisher.formats import fp8
from publisher.native import recode
from publisher.native.job import Job
from publisher.native.source import SourceTensors
from publisher.native.units import Unit, plan_layout, plan_units


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A job with its source opened and its result laid out.

    Args:
        job: the job.
        source: the source's tensors.
        seen: the activation statistics, where the job has some.
        ranges: what every module's input is quantized for; empty unless activations are calibrated.
        units: the work in order.
        layout: the shards of the result.
    """

    job: Job
    source: SourceTensors
    seen: Statistics | None
    ranges: InputRanges
    units: tuple[Unit, ...]
    layout: tuple[ShardLayout, ...]

    @property
    def inputs(self) -> Mapping[str, np.float32]:
        """Module to the scale of its input as stored."""
        fp8 = frozenset(self.job.fp8)
        return {
            name: recode.fp8_input_scale(amax) if name in fp8 else statistics.input_scale(amax, self.job.stored)
            for name, amax in self.ranges.amax.items()
        }


def prepare(job: Job) -> Work:
    """Read headers and statistics and lay the result out; nothing is written.

    Raises:
        CheckpointError: the source, the statistics or the job's modules do not do; named.
    """
    source = SourceTensors(job.source, job.quantize, job.stored)
    seen = None if job.statistics is None else recode.with_stacks(statistics.read(job.statistics), source.stacks)
    ranges = InputRanges(amax={}, substituted={})
    if seen is not None and job.activations == "calibrated":
        how = fp8.BESIDE.get(job.layout)
        beside = job.fp8 if how is not None and how.inputs else ()
        ranges = statistics.input_ranges(seen, (*job.quantize, *beside), job.groups)
    units = plan_units(source.refs, job, repacked=source.repacked, stacks=source.stacks)
    return Work(job=job, source=source, seen=seen, ranges=ranges, units=units, layout=plan_layout(units, job))
