#!/usr/bin/env bash
# The browser that opens reports in tests, and its driver. Installs them where that is possible, which is as root on
# Debian; otherwise says what to run. Never fails: without them the tests that open a page are skipped.
set -euo pipefail
source "${BASH_SOURCE[0]%/*}/apt.sh"

missing=()
for program in chromium chromedriver; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0
install_missing "opening pages" "tests that open a page" "chromium chromium-driver" "${missing[@]}"
