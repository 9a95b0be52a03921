#!/usr/bin/env bash
# Simulated clusters: `sim.sh --seeds N [--first S]`, or `sim.sh --seed S [--trace]` to see one again. The binary is built along with the C++ tests.
. "$(dirname "$0")/common.sh"
exec "$BUILD/cpp/ray/testing/sim/ray_sim" "$@"
