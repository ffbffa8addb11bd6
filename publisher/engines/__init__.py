"""Who quantizes: engines that turn a plan into a job file and name a program that runs it.

`ENGINES` is the whole list; nothing here imports an engine's library.
"""

from __future__ import annotations

from collections.abc import Mapping

from publisher.engines.base import Engine
from publisher.engines.modelopt import ModelOpt
from publisher.engines.native import Native

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (Native(), ModelOpt())}
