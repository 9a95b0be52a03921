#!/usr/bin/env bash
# Simulated clusters: `sim.sh [--code] --seeds N [--first S]`, or `sim.sh [--code] --seed S [--trace]` to see one again. The binary is built along with the C++ tests.
. "$(dirname "$0")/common.sh"
exec "$BUILD/cpp/ray/testing/workload/ray_sim" "$@"
