#!/usr/bin/env bash
# Format, style, types and layers. `ci/scripts/format.sh` mends the format.
. "$(dirname "$0")/common.sh"
cpp_format() { find cpp \( -name '*.h' -o -name '*.cc' \) -print0 | xargs -0 -r -n 50 -P "$JOBS" clang-format --dry-run -Werror; }
units() { command -v systemd-analyze >/dev/null || { echo "no systemd-analyze here"; return 0; }; systemd-analyze verify --man=no cpp/ray/main/systemd/*.service; }
step "clang-format" cpp_format
step "ruff" "$VENV/bin/ruff" check .
step "ruff format" "$VENV/bin/ruff" format --check .
step "mypy --strict" "$VENV/bin/mypy" --strict
step "layers" "$VENV/bin/python" ci/lint/check_layers.py
step "layers check, its own test" "$VENV/bin/python" -m pytest -q ci/lint
step "systemd units" units
