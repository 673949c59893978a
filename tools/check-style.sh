#!/usr/bin/env bash
# The look of all files under version control. Exit status 1 with FILE:LINE of what is wrong.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
bad=0

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    mapfile -t files < <(git ls-files)
else
    mapfile -t files < <(find . -type f -not -path './build/*' | sed 's,^\./,,' | sort)
fi

own=() sources=()
for file in "${files[@]}"; do
    [[ -f $file ]] || continue
    case $file in
    data/* | tests/data/* | tests/fuzz/corpus/* | LICENSE) ;; # not written here
    *.c | *.h) own+=("$file") sources+=("$file") ;;
    *) own+=("$file") ;;
    esac
done

# report TEXT PATTERN FILE...: complains about lines that match
report() {
    local text=$1 pattern=$2
    shift 2
    local found
    found=$(LC_ALL=C.UTF-8 grep -nHIP -e "$pattern" -- "$@")
    [[ -z $found ]] && return
    printf '%s:\n%s\n' "$text" "$found"
    bad=1
}

mapfile -t tabless < <(printf '%s\n' "${own[@]}" | grep -v '^Makefile$')
report 'tab' '\t' "${tabless[@]}"
report 'space at the end of a line' '[ \t\r]$' "${own[@]}"
report 'invisible or unusual space character' \
    '[\x{00A0}\x{00AD}\x{200B}-\x{200F}\x{2028}-\x{202F}\x{2060}-\x{2064}\x{FEFF}]' "${own[@]}"
report 'path of one machine' '(^|[^\w.])/(work|root|home/\w+)/' "${own[@]}"
report 'mark of unfinished work' '\b([T]ODO|[F]IXME|[X]XX|[H]ACK)\b' "${own[@]}"

for file in "${own[@]}"; do
    [[ ! -s $file || -z $(tail -c 1 "$file") ]] || { echo "$file: no newline at the end"; bad=1; }
done

for file in "${sources[@]}"; do
    case $file in
    src/*.c) limit=500 ;;
    src/*_simd.h | src/*/simd_*.h) limit=500 ;; # kernels for all vector sizes, and their words: source in all but name
    src/*.h) limit=200 ;;
    *) continue ;;
    esac
    lines=$(wc -l <"$file")
    ((lines <= limit)) || { echo "$file: $lines lines; at most $limit"; bad=1; }
done

repeated=$(printf '%s\n' "${sources[@]}" | grep '^src/' | sed 's,.*/,,' | sort | uniq -d)
[[ -z $repeated ]] || { printf 'file names that are not unique: %s\n' "$repeated"; bad=1; }

# Other versions of clang-format lay out other code.
formatter=''
for candidate in clang-format-14 clang-format; do
    [[ $($candidate --version 2>/dev/null) == *' version 14.'* ]] && formatter=$candidate && break
done
if [[ $formatter ]]; then
    "$formatter" --dry-run -Werror "${sources[@]}" || bad=1
else
    echo 'clang-format 14 is absent: the layout of the code was not checked'
fi
exit "$bad"
