#!/usr/bin/env bash
# From a bare Debian 12 or Ubuntu 24.04 to a running example: installs what is missing, builds into .venv, runs the main jobs.
. "$(dirname "$0")/scripts/common.sh"
step "dependencies" ci/scripts/deps.sh
step "build" ci/scripts/build.sh
step "examples" ci/scripts/examples.sh
printf '\nray is installed in %s; try: %s/bin/python -c "import ray; ray.init()"\n' "$VENV" "$VENV"
