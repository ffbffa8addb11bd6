"""The rules, one file per family; `publisher.rules.load_rules` imports them.

`README.md` beside this file is generated from them.
"""

FAMILIES = (
    "container",
    "storage",
    "config",
    "modelopt",
    "quark",
    "compressed",
    "modelconfig",
    "documents",
    "coverage",
    "experts",
    "kept",
    "leftovers",
    "accounting",
    "stacked",
    "exclusion",
    "scales",
    "scalars",
    "payload",
    "fusion",
    "schemes",
    "kvcache",
    "kvschemes",
    "sidecars",
    "strays",
    "tokenizer",
    "serving",
    "numerics",
    "arithmetic",
    "publication",
    "licence",
    "claims",
    "card",
)
