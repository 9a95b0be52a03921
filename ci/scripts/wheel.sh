#!/usr/bin/env bash
# Builds the wheel into dist/ and checks what is in it and what its parts link.
. "$(dirname "$0")/common.sh"
rm -rf dist
"$VENV/bin/python" -m pip wheel -q --no-build-isolation --no-deps --config-settings=build-dir="$BUILD" -w dist .
wheel=$(ls dist/raycore-*.whl)
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
"$VENV/bin/python" -m zipfile -e "$wheel" "$unpacked"
for part in ray/_core/libray_core.so ray/core/gcs_server ray/core/raylet ray/core/systemd/raycore-gcs.service 'ray/_raylet*.so' ray/py.typed; do
  # shellcheck disable=SC2086  # a pattern
  ls $unpacked/$part >/dev/null || { echo "$wheel lacks $part" >&2; exit 1; }
done
for library in "$unpacked"/ray/*.so "$unpacked"/ray/_core/*.so; do
  needed=$(readelf -d "$library" | grep NEEDED)
  if grep -E 'grpc|absl|libprotobuf\.so' <<<"$needed"; then
    echo "${library#"$unpacked"/} must not link that" >&2
    exit 1
  fi
done
foreign=$(nm -DC --defined-only "$unpacked/ray/_core/libray_core.so" | grep -vE ' (ray::|typeinfo for ray::|typeinfo name for ray::|vtable for ray::)' || true)
if [ -n "$foreign" ]; then
  printf 'libray_core.so exports more than ray::*:\n%s\n' "$foreign" >&2
  exit 1
fi
ls -l "$wheel"
