#!/usr/bin/env bash
# Runs the conformance tests (those of ci/conformance.txt, or the files named) while messages are lost, doubled, late and overtaken.
#   ci/scripts/rpc-faults.sh [--seeds "1 2 3"] [--faults "*=-1:5:5:5" | --turns 2] [file ...]
# The faults are as in docs/architecture/rpc.md; without --faults each of a fixed list is used, with --turns so many of it for each file, in turn.
. "$(dirname "$0")/common.sh"
folder=${RAY_CONFORMANCE:-$ROOT/../shared/conformance}
if [ ! -d "$folder" ]; then
  echo "no conformance tests beside this checkout: nothing to run"
  exit 0
fi
seeds="1 2 3"
faults=("*=-1:5:5:5" "*=-1:0:0:duplicate=10:reorder=20" "*=-1:0:0:delay=10@10" "*=-1:3:3:3:duplicate=5:delay=5@10:reorder=10")
turns=${#faults[@]}
while [ $# -gt 0 ]; do
  case $1 in
    --seeds) seeds=$2; shift 2 ;;
    --faults) faults=("$2"); turns=1; shift 2 ;;
    --turns) turns=$2; shift 2 ;;
    *) break ;;
  esac
done
lines=("$@")
[ ${#lines[@]} -gt 0 ] || mapfile -t lines < <(grep -v '^#' ci/conformance.txt | grep .)
failed=()
for seed in $seeds; do
  for place in "${!lines[@]}"; do
    read -r -a arguments <<<"${lines[$place]}"
    for ((turn = 0; turn < turns; ++turn)); do
      fault=${faults[$(((place + turn) % ${#faults[@]}))]}
      echo "--- ${lines[$place]}, $fault, seed $seed"
      (cd "$folder" && RAY_testing_rpc_failure="$fault" RAY_testing_rpc_failure_seed="$seed" \
        "$VENV/bin/python" -B -m pytest -q --timeout=180 -p no:cacheprovider "${arguments[@]}" </dev/null) || failed+=("${lines[$place]}, $fault, seed $seed")
    done
  done
done
for run in "${failed[@]}"; do echo "failed: $run"; done
[ ${#failed[@]} -eq 0 ]
