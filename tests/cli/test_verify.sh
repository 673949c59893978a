#!/usr/bin/env bash
# attnscope verify: the table on two mechanisms, JSON, bfloat16, seeds and mistakes.
# Usage: test_verify.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

# verify STATUS ARGUMENT...: runs it; the output lies in $folder/out and err
verify() {
    local status=$1 got=0
    shift
    "$attnscope" verify "$@" >"$folder/out" 2>"$folder/err" </dev/null || got=$?
    [[ $got == "$status" ]] || fail "verify $*: status $got, not $status
$(cat "$folder/out" "$folder/err")"
}

# Errors are machine-dependent, and so is whether two orders of sums give the same bits.
without_figures() {
    sed -E 's/ [0-9]\.[0-9]e-[0-9]+/ #/g; s/ (ok|=)( |$)/ *\2/g; s/ (ok|=)( |$)/ *\2/g; s/ +/ /g' \
        "$folder/out"
}

# ---- the table ----------------------------------------------------------------------------

table='float32, ref, threads 1, products plain
batch 2, 70 tokens, seed 7

mechanism y err grad leak prefix batch decode thread docs huge work mem
flash # # * * * * * * * * *
sliding:window=9:sinks=2
 # # * * * * * * * * *

= the same bits or counts * within rounding - does not apply
2 of 2 mechanisms keep what they promise
'
small=(--mechanisms 'flash,sliding:window=9:sinks=2' --seq 70 --seed 7)
verify 0 "${small[@]}" --isa ref
diff <(printf '%s' "$table") <(without_figures) || fail 'the table'
# plain kernels and products: every sum has one order, and the same seed gives the same figures
grep -Eq '^flash +[0-9.e-]+ +[0-9.e-]+ +(= +){3}' "$folder/out" || fail 'bits of flash'
cp "$folder/out" "$folder/first"
verify 0 "${small[@]}" --isa ref
diff "$folder/first" "$folder/out" || fail 'the same seed gives other figures'
verify 0 "${small[@]}" --isa auto --threads 2
awk 'length > 80 { exit 1 }' "$folder/out" || fail 'wider than 80 columns'

verify 0 --mechanisms cross:mem_len=1,cross:mem_len=70:mem_dim=9 --seq 5 --isa ref
[[ $(grep -c 'reads a memory; its tokens see nothing of each other' "$folder/out") == 2 ]] ||
    fail 'no word on why cross has no order'

# A pattern stands for the mechanisms in it; one that is not causal by design says so.
mixed='float32, ref, threads 1, products plain
batch 2, 20 tokens, seed 7

mechanism y err grad leak prefix batch decode thread docs huge work mem
sliding # # * * * * * * * * *
flex:mask=full # # yes - * - * - * * *
flash # # * * * * * * * * *

= the same bits or counts * within rounding - does not apply
- flex:mask=full: not causal by design
 (future, prefix, decode, documents)
3 of 3 mechanisms keep what they promise
'
mixed_options=(--mechanisms 'sliding*3+flex:mask=full,flash+sliding' --seq 20 --seed 7 --isa ref)
verify 0 "${mixed_options[@]}"
diff <(printf '%s' "$mixed") <(without_figures) || fail 'the table of a pattern'
verify 0 "${mixed_options[@]}" --json
[[ $(grep -c '"verdict": "not causal by design"' "$folder/out") == 4 ]] || fail 'JSON: by design'

# ---- seeds --------------------------------------------------------------------------------

seed_of() { sed -n 's/.*seed //p' "$folder/out"; }
verify 0 --mechanisms mqa --seq 20 --isa ref
first=$(seed_of)
verify 0 --mechanisms mqa --seq 20 --isa ref
[[ $first =~ ^[1-9][0-9]*$ && $first != "$(seed_of)" ]] || fail 'no fresh seed'

# ---- JSON ---------------------------------------------------------------------------------

verify 0 "${small[@]}" --isa ref --json
for text in '"isa": "ref"' '"seed": 7' '"mechanism": "sliding:window=9:sinks=2"' \
    '"dtype": "f32"' '"holds": true' '"tolerance": 2' '"memory": {'; do
    grep -qF "$text" "$folder/out" || fail "no $text in the JSON"
done
[[ $(grep -c '"verdict": "holds"' "$folder/out") == 22 ]] || fail 'verdicts in the JSON'

# ---- bfloat16 -----------------------------------------------------------------------------

both='float32, ref, threads 1, products plain
batch 2, 20 tokens, seed 7

mechanism y err grad leak prefix batch decode thread docs huge work mem
flash # # * * * * * * * * *
gla # # * * * * * * * * *

= the same bits or counts * within rounding - does not apply
2 of 2 mechanisms keep what they promise

bfloat16, ref, threads 1, products our own
batch 2, 20 tokens, seed 7

mechanism y err grad leak prefix batch decode thread docs huge work mem
flash # # * * * * * * * * *
gla # # * * * * * * * * *

= the same bits or counts * within rounding - does not apply
2 of 2 mechanisms keep what they promise
'
two=(--mechanisms 'flash,gla' --seq 20 --seed 7 --isa ref)
verify 0 "${two[@]}" --dtype all
diff <(printf '%s' "$both") <(without_figures) || fail 'the tables of both types'
sed '1,/^$/d' "$folder/out" | sed -n '/^bfloat16/,$p' >"$folder/second"
verify 0 "${two[@]}" --dtype bf16
diff "$folder/second" "$folder/out" || fail 'bf16 alone is not the second table of all'
# its errors are those of bfloat16: thousands of times float32's, and far below 1
awk '/^(flash|gla) / && !($2 > 5e-4 && $2 < 5e-2 && $3 > 5e-4 && $3 < 0.5) { exit 1 }' \
    "$folder/out" || fail 'errors that are not of bfloat16'
verify 0 "${two[@]}" --dtype all --json
for type in f32 bf16; do
    [[ $(grep -c "\"dtype\": \"$type\"" "$folder/out") == 2 ]] || fail "JSON: results in $type"
done
[[ $(grep -c '"verdict": "holds"' "$folder/out") == 44 ]] || fail 'JSON: verdicts of both types'

# ---- mistakes -----------------------------------------------------------------------------

# refused TEXT ARGUMENT...
refused() {
    local text=$1
    shift
    verify 2 "$@"
    grep -qF -e "$text" "$folder/err" || fail "verify $*: $(cat "$folder/err")"
    [[ ! -s $folder/out ]] || fail "verify $*: prints in spite of the mistake"
}
refused "unknown mechanism 'flahs'; did you mean 'flash'?" --mechanisms flahs
refused "sliding has no option 'windw'; did you mean 'window'?" --mechanisms sliding:windw=3
refused "mechanism 'flash' is named twice" --mechanisms flash,flash
refused 'an empty name' --mechanisms flash,
refused "'sliding*0': behind * comes a number of blocks" --mechanisms 'flash,sliding*0'
refused 'sliding: option window takes a whole number from 1 to 268435456, not ' --mechanisms sliding:window=0
refused 'sliding: sinks=100 are more than the 20 positions' --mechanisms sliding:sinks=100 --seq 20
refused '--seq' --seq 1
refused '--isa' --isa sse
refused "--dtype must be f32, bf16 or all, not 'fp8'" --dtype fp8

((failures == 0)) || exit 1
