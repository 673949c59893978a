#!/usr/bin/env bash
# What commands made in docs/costs.md and docs/devices.md is what they make now.
# Usage: test_costs_docs.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1 source_dir=$2
command -v python3 >/dev/null || { echo 'SKIP: python3 is absent'; exit 0; }
"$source_dir/tools/made-blocks.py" "$attnscope" "$source_dir/docs/costs.md" "$source_dir/docs/devices.md"
