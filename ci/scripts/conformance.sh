#!/usr/bin/env bash
# Runs the lines of ci/conformance.txt (a file and, optionally, pytest arguments) from the conformance tests in ../shared/conformance or $RAY_CONFORMANCE.
. "$(dirname "$0")/common.sh"
folder=${RAY_CONFORMANCE:-$ROOT/../shared/conformance}
if [ ! -d "$folder" ]; then
  echo "no conformance tests beside this checkout: nothing to run"
  exit 0
fi
while read -r -a line; do
  [ ${#line[@]} -gt 0 ] && [ "${line[0]:0:1}" != "#" ] || continue
  # From their own folder, with their own settings: they must not see this checkout. No test needs half of that time.
  conformance() { cd "$folder" && "$VENV/bin/python" -B -m pytest -q --timeout=90 "$@" </dev/null; }
  step "conformance: ${line[*]}" conformance "${line[@]}"
done <ci/conformance.txt
