#!/usr/bin/env bash
# Everything that must pass before a change lands. Can be run again and again; stops at the first step that fails.
. "$(dirname "$0")/scripts/common.sh"
export RAY_BUILD_TESTS=ON RAY_WERROR=ON
step "dependencies" ci/scripts/deps.sh
step "lint" ci/scripts/lint.sh
step "build" ci/scripts/build.sh
step "tests" ci/scripts/test.sh
step "wheel" ci/scripts/wheel.sh
step "sanitizers" ci/scripts/sanitize.sh
step "sanitizer for threads" ci/scripts/sanitize.sh thread
step "conformance" ci/scripts/conformance.sh
step "conformance while messages fare badly" ci/scripts/rpc-faults.sh --seeds 1 --turns 1
printf '\nAll passed in %s s.\n' "$SECONDS"
