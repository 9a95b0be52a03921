#!/usr/bin/env bash
# Formats all sources in place.
. "$(dirname "$0")/common.sh"
find cpp \( -name '*.h' -o -name '*.cc' \) -print0 | xargs -0 -r clang-format -i
"$VENV/bin/ruff" check --fix .
"$VENV/bin/ruff" format .
