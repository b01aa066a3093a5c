#!/usr/bin/env bash
# Libraries that MuJoCo renders with in software. Installs those that are missing where that is possible, which is as
# root on Debian and Ubuntu; otherwise says what to run. Never fails: without them the tests that render are skipped.
set -euo pipefail
source "${BASH_SOURCE[0]%/*}/apt.sh"

PACKAGES="libosmesa6 libegl1 libgl1-mesa-dri libopengl0"
LIBRARIES="libOSMesa.so libEGL.so.1 libOpenGL.so.0"

installed=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true)
missing=()
for library in $LIBRARIES; do
  [[ "$installed" == *"$library"* ]] || missing+=("$library")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0
install_missing rendering "tests that render" "$PACKAGES" "${missing[@]}"
