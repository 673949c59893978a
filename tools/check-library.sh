#!/usr/bin/env bash
# What is inside the library: wide registers only in the files of their instruction set, public
# symbols with the library's prefix, and no call that prints or ends the program.
# Usage: check-library.sh LIBATTN.A
set -euo pipefail
library=$1
bad=0

if [[ $(uname -m) == x86_64 ]]; then
    leaks=$(objdump -d --no-show-raw-insn "$library" | awk '
        /file format/ { object = $1; sub(/:$/, "", object) }
        /%zmm|%tmm/ && object !~ /(avx512|amx)/ { wide[object]++ }
        /%ymm/ && object !~ /(avx2|avx512|amx)/ { wide[object]++ }
        END { for (object in wide) print object ": " wide[object] " instructions" }')
    [[ -z $leaks ]] || { printf 'wide registers in portable objects:\n%s\n' "$leaks"; bad=1; }
fi

strangers=$(nm -g --defined-only "$library" | awk 'NF == 3 && $3 !~ /^attn_/ { print $3 }')
[[ -z $strangers ]] || { printf 'public symbols without attn_:\n%s\n' "$strangers"; bad=1; }

calls=$(nm -u "$library" | awk '$1 == "U" { print $2 }' | sort -u |
    grep -xE 'exit|_exit|abort|printf|fprintf|vprintf|puts|putchar|fputs|perror|stdout|stderr|fork' || true)
[[ -z $calls ]] || { printf 'the library may not use:\n%s\n' "$calls"; bad=1; }
exit "$bad"
