#!/usr/bin/env bash
# A Slurm that tests start and stop themselves on this machine. Installs it where that is possible, which is as root on
# Debian and Ubuntu; otherwise says what to run. Never fails: without it the tests that need a cluster are skipped.
set -euo pipefail
source "${BASH_SOURCE[0]%/*}/apt.sh"

# Daemons are in a place that ordinary users do not have on PATH.
PATH="$PATH:${SBIN-/usr/sbin}"
missing=()
for program in munged slurmctld slurmd sbatch; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0
install_missing "Slurm" "tests that need a cluster" "--no-install-recommends slurmctld slurmd slurm-client munge" "${missing[@]}"
