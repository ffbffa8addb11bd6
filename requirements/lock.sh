#!/usr/bin/env bash
# Compiles requirements/dev.lock: every version development and CI use, except torch and what only torch needs.
# Needs uv. UV_FIND_LINKS may name a folder of wheels; without one, uv resolves torch from the default index.
set -euo pipefail
cd "$(dirname "$0")"
uv pip compile --quiet --no-header --no-annotate --python-version 3.11 \
    --constraint ../constraints.txt --no-emit-package torch --no-emit-package setuptools \
    dev.in --output-file dev.lock "$@"
