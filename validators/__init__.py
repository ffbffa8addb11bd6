"""The rules, one file per family; `publisher.rules.load_rules` imports them.

`README.md` beside this file is generated from them.
"""

FAMILIES = (
    "container",
    "config",
    "coverage",
    "experts",
    "kept",
    "leftovers",
    "accounting",
    "stacked",
    "exclusion",
    "scales",
    "fusion",
    "schemes",
    "kvcache",
    "kvschemes",
    "sidecars",
    "serving",
    "publication",
)
