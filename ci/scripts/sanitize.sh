#!/usr/bin/env bash
# Builds and runs the C++ tests under sanitizers: `sanitize.sh` all of them under address,undefined; `sanitize.sh thread` those labelled "threads".
. "$(dirname "$0")/common.sh"
sanitizer=${1:-address,undefined}
folder=$ROOT/build/sanitize-${sanitizer//,/-}
target=all label=()
if [ "$sanitizer" = thread ]; then
  target=tests_threads label=(-L '^threads$')
fi
# -O1 -g1: half the time to compile, and stacks that read well.
cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1" -DRAY_SANITIZE="$sanitizer" -DRAY_BUILD_PYTHON=OFF \
  -DRAY_BUILD_TESTS=ON
cmake --build "$folder" --target "$target"
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=second_deadlock_stack=1:history_size=4
ctest --test-dir "$folder" --output-on-failure --no-tests=error -j "$JOBS" "${label[@]}"
