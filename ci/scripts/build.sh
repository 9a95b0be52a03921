#!/usr/bin/env bash
# Builds everything and installs the package into the virtual environment. The C++ tests are built along when RAY_BUILD_TESTS=ON.
. "$(dirname "$0")/common.sh"
"$VENV/bin/python" -m pip install -q --no-build-isolation --force-reinstall --no-deps --config-settings=build-dir="$BUILD" .
# What the package needs at run time, unless it is there (the pinned set has it).
"$VENV/bin/python" -m pip check
