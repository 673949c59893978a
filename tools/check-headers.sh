#!/usr/bin/env bash
# Every public header compiles alone, as C99, C11 and C++17, with every compiler at hand.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
bad=0

# compile HEADER COMPILER OPTION...
compile() {
    local header=$1
    shift
    command -v "$1" >/dev/null || return 0
    printf '#include "%s"\n' "$header" |
        "$@" -Iinclude -Wall -Wextra -Wpedantic -Werror -fsyntax-only - || {
        echo "$header does not compile alone: $*"
        bad=1
    }
}

shopt -s nullglob
for path in include/attn/*.h; do
    header=${path#include/}
    for compiler in gcc clang; do
        compile "$header" "$compiler" -x c -std=c99
        compile "$header" "$compiler" -x c -std=c11
    done
    compile "$header" g++ -x c++ -std=c++17
done
exit "$bad"
