#!/usr/bin/env bash
# Installs the packages of tools/packages.txt that are missing. Without network nothing is
# tried when nothing is missing.
# Usage: install-packages.sh build|check
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
wanted=${1:-check}

missing=()
if ! command -v dpkg-query >/dev/null; then
    echo "Not a Debian or Ubuntu system: see tools/packages.txt for what is needed." >&2
    exit 0
fi
while read -r name need _; do
    [[ -z $name || $name == \#* ]] && continue
    [[ $need == build || $need == "$wanted" ]] || continue
    state=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)
    [[ $state == installed ]] || missing+=("$name")
done <tools/packages.txt
[[ ${#missing[@]} == 0 ]] && exit 0

as_root=()
if [[ $(id -u) != 0 ]]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing packages, and neither root nor sudo to install them. As root:" >&2
        echo "  apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n) # never wait for a password that nobody can type
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q </dev/null || true # old lists may do
# One that this system does not have must not keep the others away.
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null || {
    failed=0
    for name in "${missing[@]}"; do
        "${as_root[@]}" apt-get install -y -q --no-install-recommends "$name" </dev/null || {
            echo "Could not install $name" >&2
            failed=1
        }
    done
    exit "$failed"
}
