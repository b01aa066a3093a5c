#!/usr/bin/env bash
# Libraries that MuJoCo renders with in software. Installs those that are missing where that is possible, which is as
# root on Debian and Ubuntu; otherwise says what to run. Never fails: without them the tests that render are skipped.
set -euo pipefail

PACKAGES="libosmesa6 libegl1 libgl1-mesa-dri libopengl0"
LIBRARIES="libOSMesa.so libEGL.so.1 libOpenGL.so.0"

installed=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true)
missing=()
for library in $LIBRARIES; do
  [[ "$installed" == *"$library"* ]] || missing+=("$library")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

command="apt-get install -y $PACKAGES"
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
  echo "Missing for rendering: ${missing[*]}. Tests that render are skipped; as root on Debian or Ubuntu: $command" >&2
  exit 0
fi
echo "Missing for rendering: ${missing[*]}. Running: $command" >&2
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -qq "$@" >/dev/null; }
# shellcheck disable=SC2086  # several packages
if ! { install $PACKAGES || { apt-get update -qq && install $PACKAGES; }; }; then
  echo "That has failed, so tests that render are skipped." >&2
fi
