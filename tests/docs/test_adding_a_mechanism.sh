#!/usr/bin/env bash
# docs/adding-a-mechanism.md does what it says: its blocks are applied one by one to a copy of the
# tree, and the mechanism that they add must then appear everywhere.
# Usage: test_adding_a_mechanism.sh SOURCE_DIR
set -uo pipefail
source_dir=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset CMAKE_C_COMPILER_LAUNCHER # what a reader has
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

mkdir "$folder/tree" && cd "$folder/tree" || exit 1
tar -C "$source_dir" --exclude=./.git --exclude=./build -cf - . | tar -xf - || exit 1
document=docs/adding-a-mechanism.md

# ---- the document, block by block -----------------------------------------------------------

# Writes each block to a file of its own, N.block, and the line before it to N.lead.
awk -v folder="$folder" '
    inside && /^```$/ { inside = 0; close(folder "/" n ".block"); next }
    inside { print > (folder "/" n ".block"); next }
    /^```/ { inside = 1; n++; print substr($0, 4) " " lead > (folder "/" n ".lead"); next }
    NF { lead = $0 }
    END { if (inside) exit 1 }' $document || fail "$document: a block does not end"

applied=0
# apply BLOCK LEAD: one step
apply() {
    local block=$1 lead=$2 file
    local write='^c Write `([^`]+)`:$' append='^[a-z]+ Append to `([^`]+)`:$'
    local insert='^c Insert into `([^`]+)` before `([^`]+)`:$'
    applied=$((applied + 1))
    if [[ $lead == sh\ * ]]; then
        bash -euo pipefail "$block" </dev/null >>"$folder/output" 2>&1 ||
            fail "$(<"$block")"$'\n'"$(tail -n 30 "$folder/output")"
    elif [[ $lead =~ $write ]]; then
        [[ ! -e ${BASH_REMATCH[1]} ]] || fail "${BASH_REMATCH[1]} is there already"
        cp "$block" "${BASH_REMATCH[1]}"
    elif [[ $lead =~ $append ]]; then
        [[ -e ${BASH_REMATCH[1]} ]] || fail "${BASH_REMATCH[1]} is no file to append to"
        cat "$block" >>"${BASH_REMATCH[1]}"
    elif [[ $lead =~ $insert ]]; then
        file=${BASH_REMATCH[1]}
        awk -v block="$block" -v place="${BASH_REMATCH[2]}" '
            !found && index($0, place) { while ((getline line < block) > 0) print line; found = 1 }
            { print }
            END { exit !found }' "$file" >"$folder/edited" || fail "$file has no ${BASH_REMATCH[2]}"
        cp "$folder/edited" "$file"
    else
        fail "a block of $document that is no step: $lead"
    fi
}
for ((n = 1; failures == 0; n++)); do
    [[ -e $folder/$n.lead ]] || break
    apply "$folder/$n.block" "$(<"$folder/$n.lead")"
done
((applied > 0)) || fail "no blocks in $document"
((failures == 0)) || exit 1

# ---- the mechanism, everywhere --------------------------------------------------------------

name=$(sed -n 's/^    build.*--mechanism \([a-z]*\)$/\1/p; s/^build.*--mechanism \([a-z]*\)$/\1/p' \
    $document | head -n 1)
[[ -n $name ]] || fail "$document names no mechanism"
attnscope=build/dev/attnscope

# has WHAT TEXT COMMAND...: the command succeeds and prints the text
has() {
    local what=$1 text=$2
    shift 2
    "$@" >"$folder/out" 2>"$folder/err" </dev/null || fail "$what: status $?: $(<"$folder/err")"
    grep -qF -e "$text" "$folder/out" || fail "$what: no '$text'"
}
ran=$folder/output
has 'the list' "$name" "$attnscope" mechanisms
has 'the list as JSON' "\"name\": \"$name\"" "$attnscope" mechanisms --json
for command in run verify eval; do
    has "help $command" "$name" "$attnscope" help $command
done
has 'the manual' "$name" "$attnscope" help --man
has 'completion' " $name " "$attnscope" help --completion bash
has 'verified' '2 of 2 mechanisms keep what they promise' cat "$ran"
has 'verified, all by their names' "$name " \
    "$attnscope" verify --mechanisms "$name" --seq 9 --isa ref
has 'evaluated' "$name, f32, forward and gradients: batch" cat "$ran"
has 'attncheck list' "$name" build/dev/tests/attncheck list
has 'attncheck' "test     $name" cat "$ran"
# what attncheck skips of a causal mechanism it names with the options
grep -q 'skipped .* decay=1' "$ran" || fail 'the options are not under test'
has 'the store' "$name" "$attnscope" list
has 'the report' "$name" "$attnscope" report
has 'documentation' "## $name" cat docs/mechanisms.md
"$attnscope" verify --mechanisms "${name}x" 2>"$folder/err" &&
    fail 'a mistyped name is accepted'
grep -qF "did you mean '$name'?" "$folder/err" || fail "the nearest name: $(<"$folder/err")"
if command -v clang-format-14 >/dev/null; then
    clang-format-14 --dry-run -Werror "src/mechanisms/$name.c" || fail 'the layout of the file'
fi
tools/check-layers.sh >"$folder/out" || fail "layers: $(<"$folder/out")"

((failures == 0)) && echo ok
exit $((failures > 0))
