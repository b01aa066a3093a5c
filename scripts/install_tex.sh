#!/usr/bin/env bash
# LaTeX with the packages that reports use. Installs it where that is possible, which is as root on Debian and Ubuntu;
# otherwise says what to run. Never fails: without it the tests that compile LaTeX are skipped.
set -euo pipefail
source "${BASH_SOURCE[0]%/*}/apt.sh"

command -v pdflatex >/dev/null && exit 0
install_missing "LaTeX" "tests that compile LaTeX" "texlive-latex-base texlive-latex-recommended" pdflatex
