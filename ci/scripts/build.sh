#!/usr/bin/env bash
# Builds everything and installs the package into the virtual environment. The C++ tests are built along when RAY_BUILD_TESTS=ON.
. "$(dirname "$0")/common.sh"
"$VENV/bin/python" -m pip install -q --no-build-isolation --force-reinstall --no-deps --config-settings=build-dir="$BUILD" .
# What the package needs at run time is in the pinned set; an environment from before it grew gets the rest.
"$VENV/bin/python" -m pip check >/dev/null || "$VENV/bin/python" -m pip install -q -r ci/requirements-test.txt
"$VENV/bin/python" -m pip check
