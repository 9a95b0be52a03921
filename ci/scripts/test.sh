#!/usr/bin/env bash
# The C++ tests of the build folder and the Python tests against the installed package.
. "$(dirname "$0")/common.sh"
python_tests() {
  local folders=()
  for folder in tests/python tests/integration tests/cluster tests/chaos; do [ -e "$folder" ] && folders+=("$folder"); done
  "$VENV/bin/python" -m pytest -q "${folders[@]}"
}
step "C++ tests" ctest --test-dir "$BUILD" --output-on-failure --no-tests=error -j "$JOBS"
step "simulated clusters" "$ROOT/ci/scripts/sim.sh" --seeds 2000
step "simulated programs" "$ROOT/ci/scripts/sim.sh" --code --seeds 500
step "Python tests" python_tests
