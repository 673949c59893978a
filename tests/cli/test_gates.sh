#!/usr/bin/env bash
# The gates of ./check refuse what they are there to refuse: planted faults in a copy.
# Usage: test_gates.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
source_dir=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

cp -r "$source_dir/tools" "$source_dir/.clang-format" "$folder"
mkdir -p "$folder/src/base" "$folder/src/kernels" "$folder/include/attn"
cd "$folder" || exit 1

# passes SCRIPT / refuses SCRIPT TEXT: the gate's status, and a part of what it says
passes() {
    "tools/$1" "${@:2}" >out 2>&1 || fail "$1 refuses what is clean: $(<out)"
}
refuses() {
    "tools/$1" "${@:3}" >out 2>&1 && fail "$1 accepts: $2"
    grep -qF -e "$2" out || fail "$1 does not say '$2': $(<out)"
}

passes check-style.sh
# plant NAME FORMAT TEXT: a file with this content is refused with TEXT
plant() {
    # shellcheck disable=SC2059
    printf "$2" >"$1"
    refuses check-style.sh "$3"
    rm "$1"
}
plant src/base/a.c '\tint a;\n' 'tab'
plant src/base/a.c 'int a; \n' 'space at the end of a line'
plant src/base/a.c 'int a;' 'src/base/a.c: no newline at the end'
plant a.md 'zero\xe2\x80\x8bwidth\n' 'invisible'
plant a.md 'see /ro''ot/x\n' 'path of one machine'
plant a.md 'see /ho''me/me/x\n' 'path of one machine'
plant a.md 'TO''DO later\n' 'mark of unfinished work'
plant src/base/a.c "$(printf '\\n%.0s' {1..501})" 'src/base/a.c: 501 lines; at most 500'
plant src/base/a.h "$(printf '\\n%.0s' {1..201})" 'src/base/a.h: 201 lines; at most 200'
touch src/base/same.c src/kernels/same.c
refuses check-style.sh 'file names that are not unique: same.c'
rm src/base/same.c src/kernels/same.c
if command -v clang-format-14 >/dev/null; then
    plant src/base/a.c 'int   a;\n' 'should be clang-formatted'
fi

passes check-layers.sh
echo '#include "kernels/kernels.h"' >src/base/a.c
refuses check-layers.sh 'src/base/a.c:1: base may not include kernels'
echo '#include "b.h"' >src/base/a.c
refuses check-layers.sh 'does not name its layer'
rm src/base/a.c

echo 'size_t lacks_its_include(void);' >include/attn/a.h
refuses check-headers.sh 'attn/a.h does not compile alone'
printf '#ifndef A\n#define A\nint fine(void);\n#endif\n' >include/attn/a.h
passes check-headers.sh

if command -v objdump >/dev/null; then
    # library NAME SOURCE: an archive of one object
    library() {
        printf '%s\n' "$2" >"$1.c"
        cc -O1 -c "$1.c" -o "$1.c.o" && rm -f lib.a && ar rc lib.a "$1.c.o"
    }
    library plain 'int attn_fine(void) { return 3; }'
    passes check-library.sh lib.a
    library plain 'int stranger(void) { return 3; }'
    refuses check-library.sh 'stranger' lib.a
    library plain '#include <stdlib.h>
                   void attn_end(void) { abort(); }'
    refuses check-library.sh 'abort' lib.a
    if [[ $(uname -m) == x86_64 ]]; then
        wide='void attn_wide(void) { __asm__("vzeroall\n vaddps %ymm0, %ymm1, %ymm2"); }'
        library plain "$wide"
        refuses check-library.sh 'plain.c.o: 1 instructions' lib.a
        library kernels_avx2 "$wide"
        passes check-library.sh lib.a
        library kernels_avx2 'void attn_w(void) { __asm__("vaddps %zmm0, %zmm1, %zmm2"); }'
        refuses check-library.sh 'kernels_avx2.c.o: 1 instructions' lib.a
    fi
fi

cat >results.xml <<'X'
<testsuite name="x" tests="5">
    <testcase name="a" status="run"><system-out>fine
</system-out></testcase>
    <testcase name="b" status="fail"><failure message=""/><system-out></system-out></testcase>
    <testcase name="c" status="notrun"><skipped message=""/></testcase>
    <testcase name="d" status="run"><system-out>row
10 passed, 0 failed, 2 skipped
</system-out></testcase>
    <testcase name="e" status="fail"><system-out>1 passed, 0 failed, 0 skipped
</system-out></testcase>
</testsuite>
X
[[ $(tools/count-tests.sh results.xml) == '12 2 3' ]] || fail "count: $(tools/count-tests.sh results.xml)"

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
