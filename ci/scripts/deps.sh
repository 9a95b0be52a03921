#!/usr/bin/env bash
# Installs what is missing: Debian packages (Debian 12, Ubuntu 24.04), then a virtual environment with the pinned Python packages.
. "$(dirname "$0")/common.sh"

packages=(ccache clang-format cmake g++ libabsl-dev libbenchmark-dev libc-ares-dev libgmock-dev libgrpc++-dev libgtest-dev libhiredis-dev
  libprotobuf-dev libre2-dev libsqlite3-dev libssl-dev ninja-build pkg-config protobuf-compiler python3-dev python3-venv zlib1g-dev)
# Tests start servers of their own, and networks.
[ "${RAY_BUILD_TESTS:-OFF}" != ON ] || packages+=(iproute2 openssl redis-server)

missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
else
  echo "This is no Debian or Ubuntu: install the equivalents of ${packages[*]} yourself." >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "Installing ${missing[*]}"
  sudo=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "Not root and no sudo: cannot install ${missing[*]}" >&2; exit 1; }
    sudo=(sudo)
  fi
  # The package would start a server of its own, on a port that a head node may want.
  if [ -d /run/systemd/system ] && [[ " ${missing[*]} " == *" redis-server "* ]]; then "${sudo[@]}" systemctl mask redis-server; fi
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

if [ ! -x "$VENV/bin/python" ]; then
  python3 -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version) if sys.version_info < (3, 10) else None'
  python3 -m venv "$VENV"
fi
"$VENV/bin/python" -m pip install -q -r ci/requirements-build.txt -r ci/requirements-test.txt
