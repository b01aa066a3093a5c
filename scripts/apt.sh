# Sourced by the scripts that install what tests need from the system.

# install_missing PURPOSE TESTS PACKAGES MISSING...: installs PACKAGES where that is possible, which is as root on Debian
# and Ubuntu; otherwise says what to run. Never fails: TESTS are then skipped.
install_missing() {
  local purpose=$1 tests=$2 packages=$3 command="apt-get install -y $3"
  shift 3
  if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Missing for $purpose: $*. ${tests^} are skipped; as root on Debian or Ubuntu: $command" >&2
    return
  fi
  echo "Missing for $purpose: $*. Running: $command" >&2
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086  # several packages
  if ! { apt_install $packages || { apt-get update -qq && apt_install $packages; }; }; then
    echo "That has failed, so $tests are skipped." >&2
  fi
}

apt_install() { apt-get install -y -qq "$@" >/dev/null; }
