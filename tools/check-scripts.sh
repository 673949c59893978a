#!/usr/bin/env bash
# Every shell script under shellcheck.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shopt -s nullglob
shellcheck --severity=warning check quickstart .ci/run tools/*.sh tests/cli/*.sh tests/docs/*.sh
