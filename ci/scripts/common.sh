# Sourced by the scripts beside it: where things are, and how a step is run and timed.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
VENV=${RAY_VENV:-$ROOT/.venv}
BUILD=${RAY_BUILD_DIR:-$ROOT/build/release}
JOBS=${RAY_JOBS:-$(nproc)}
export CMAKE_BUILD_PARALLEL_LEVEL=$JOBS PIP_DISABLE_PIP_VERSION_CHECK=1
# Builds in other checkouts share cached objects, provided that the compiler is called by one name: the one that CMake takes by itself,
# where pip would take the one that Python was built with.
export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1 CXX=${CXX:-c++}

# step <title> <command...>: runs it under a banner, tells how long it took, and ends everything where it fails.
step() {
  local title=$1 began=$SECONDS
  shift
  printf '\n===== %s\n' "$title"
  # Not as a condition, which would switch off errexit inside functions.
  set +e
  (set -e; "$@")
  local status=$?
  set -e
  if [ "$status" != 0 ]; then
    printf '\n##### FAILED: %s (exit code %s, after %s s)\n' "$title" "$status" "$((SECONDS - began))" >&2
    exit "$status"
  fi
  printf '===== done: %s (%s s)\n' "$title" "$((SECONDS - began))"
}
