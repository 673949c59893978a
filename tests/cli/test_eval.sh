#!/usr/bin/env bash
# attnscope eval on the golden files, on damaged ones and on mistakes of the person.
# Usage: test_eval.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1 source_dir=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

# evaluate STATUS ARGUMENT...: runs eval; its output lies in $folder/out and err
evaluate() {
    local status=$1 got=0
    shift
    "$attnscope" eval "$@" >"$folder/out" 2>"$folder/err" </dev/null || got=$?
    [[ $got == "$status" ]] || fail "eval $*: status $got, not $status: $(cat "$folder/err")"
}

# ---- golden files -------------------------------------------------------------------------

declare -A skipped
compared=0

# golden FILE [MECHANISM]: every precision, where the mechanism exists
golden() {
    local arguments=("$1" --compare) dtype got
    [[ $# -lt 2 ]] || arguments+=(--mechanism "$2")
    for dtype in f64 f32 bf16; do
        got=0
        "$attnscope" eval "${arguments[@]}" --dtype $dtype >"$folder/out" 2>"$folder/err" || got=$?
        if [[ $got == 2 && $(<"$folder/err") == *"unknown mechanism '"* ]]; then
            skipped[$(sed "s/.*unknown mechanism '\([^']*\)'.*/\1/" "$folder/err")]=1
            return
        fi
        compared=$((compared + 1))
        [[ $got == 0 ]] || fail "${arguments[*]} --dtype $dtype: status $got
$(cat "$folder/out" "$folder/err")"
    done
}

golden_folders=("$source_dir/tests/data/golden")
if [[ -d $source_dir/../shared/golden ]]; then
    golden_folders+=("$source_dir/../shared/golden")
else
    echo 'SKIP: ../shared/golden is absent: only the files of tests/data'
fi
for golden_folder in "${golden_folders[@]}"; do
    for file in "$golden_folder"/*.safetensors; do
        golden "$file"
        case ${file##*/} in
        softmax-*) golden "$file" sdpa && golden "$file" flash ;;
        mqa.*) golden "$file" mqa ;;
        esac
    done
done
((compared >= 12)) || fail "only $compared comparisons"
for layer in "${!skipped[@]}"; do echo "SKIP: there is no mechanism $layer"; done
echo "$compared comparisons with golden files"

# ---- results ------------------------------------------------------------------------------

gqa=$source_dir/tests/data/golden/gqa.safetensors
mqa=$source_dir/tests/data/golden/mqa.safetensors
one=$source_dir/tests/data/golden/softmax-one.safetensors

evaluate 0 "$gqa" --compare --isa ref --threads 1
table='gqa kv_heads=2, f32, forward and gradients: batch 2, 24 tokens, width 32, 4 heads
tensor                             error   tolerance  verdict
y                               #  ok
dx                              #  ok
grad.wq.weight                  #  ok
grad.wk.weight                  #  ok
grad.wv.weight                  #  ok
grad.wq.bias                    #  ok
grad.wk.bias                    #  ok
grad.wv.bias                    #  ok
grad.wo.weight                  #  ok
grad.wo.bias                    #  ok
'
diff <(printf '%s' "$table") <(sed 's/  [0-9]\.[0-9]*e-[0-9]*    2.00e-05  ok/  #  ok/' "$folder/out") ||
    fail 'the table of errors'

# written results are inputs of the next comparison: names, shapes and numbers
evaluate 0 "$gqa" --out "$folder/results" --dtype f64
[[ $(<"$folder/out") == gqa*f64* && -s $folder/results ]] || fail 'no results'
for name in y dx grad.wq.weight grad.wo.bias; do
    grep -qaF "\"$name\":{\"dtype\":\"F64\"" "$folder/results" || fail "no $name in the results"
done
evaluate 0 "$gqa" --out "$folder/results32" --dtype f32 --compare
grep -qaF '"y":{"dtype":"F32","shape":[2,24,32]' "$folder/results32" || fail 'no F32 results'

# ---- a wrong result, and files that are no case -------------------------------------------

# edit FILE SED-SCRIPT: a copy with other bytes; scripts keep lengths, as the format needs
edit() {
    LC_ALL=C sed "$2" "$1" >"$folder/case"
    [[ $(stat -c %s "$1") == "$(stat -c %s "$folder/case")" ]] || fail "the edit $2 moves the data"
    cmp -s "$1" "$folder/case" && fail "the edit $2 changes nothing"
}

# dtype_of NAME: as the edited case declares it
dtype_of() { grep -aoE "\"$1\": *\{\"dtype\": *\"[A-Z0-9]+" "$folder/case" | sed 's/.*"//'; }

# refused TEXT: the edited case is refused with this line, and leaves no output
refused() {
    evaluate 2 "$folder/case" --compare --out "$folder/never"
    diff <(printf 'attnscope: %s: %s\n' "$folder/case" "$1") "$folder/err" || fail "$1"
    [[ ! -s $folder/out && ! -e $folder/never ]] || fail "output of a refused case: $1"
}

edit "$gqa" 's/causal\\": true/causal\\":false/'
evaluate 1 "$folder/case" --compare
grep -q 'y .*TOO LARGE' "$folder/out" || fail 'a wrong y is not seen'

edit "$gqa" 's/"gqa"/"gqq"/'
refused "unknown mechanism 'gqq'; did you mean 'gqa'?"
edit "$gqa" 's/heads\\": 4, /heads\\": 5, /'
refused '5 heads do not divide the width 32'
edit "$gqa" 's/kv_heads\\": 2/kv_heads\\": 3/'
refused 'gqa: kv_heads=3 does not divide the 4 heads'
edit "$gqa" 's/kv_heads\\": 2/kv_heads\\": 4/'
refused 'tensor param.wk.weight is [16][32], and the config makes it [32][32]'
edit "$gqa" 's/kv_heads/kv_hades/'
refused "gqa has no option 'kv_hades'; did you mean 'kv_heads'?"
edit "$gqa" 's/seq\\": 24/seq\\": 25/'
refused 'tensor x is [2][24][32], and the config makes it [2][25][32]'
edit "$gqa" 's/"param.wq.bias"/"param.wq.bios"/'
refused 'tensor param.wq.bias [32] is missing'
edit "$gqa" 's/"grad.wq.bias"/"grad.wq.bios"/'
refused "gqa has no tensor 'grad.wq.bios'"
edit "$gqa" 's/"layer"/"lawyr"/'
refused "__metadata__ has no 'layer'"

edit "$gqa" 's/d_model\\": 32/d_model\\": 40/'
refused 'tensor x is [2][24][32], and the config makes it [2][24][40]'
edit "$gqa" 's/seq\\": 24/sec\\": 24/'
refused 'config: seq is missing'

# Numbers of another kind: as many bytes, so that the file stays whole.
to_integers() { # NAME: declares the tensor I64 or I32
    edit "$gqa" "s/\\(\"$1\": *{\"dtype\": *\"\\)F/\\1I/"
}
to_integers x
refused "tensor x is $(dtype_of x) [2][24][32], and the layer takes F64, F32, F16 or BF16"
to_integers param.wk.bias
refused "tensor param.wk.bias is $(dtype_of param.wk.bias) [16], and the layer takes F64, F32, F16 or BF16"

# poke NAME INDEX BYTES: an F64 element of $gqa, in the copy
poke() {
    local header begin
    header=$(od -An -tu8 -N8 "$gqa")
    begin=$(head -c $((8 + header)) "$gqa" | grep -aoE "\"$1\": *\{[^}]*" |
        sed 's/.*"data_offsets": *\[\([0-9]*\),.*/\1/')
    cp "$gqa" "$folder/case"
    # shellcheck disable=SC2059
    printf "$3" | dd of="$folder/case" bs=1 conv=notrunc status=none \
        seek=$((8 + header + begin + 8 * $2))
}
nan='\0\0\0\0\0\0\xf8\x7f' infinity='\0\0\0\0\0\0\xf0\x7f' huge='\0\0\0\0\0\0\xe0\x7e'
poke x 7 "$nan"
refused 'element 7 of tensor x is NaN'
poke x 1535 "$infinity"
refused 'element 1535 of tensor x is infinite'
poke param.wv.weight 0 "$nan"
refused 'element 0 of tensor param.wv.weight is NaN'
poke dy 3 "$nan"
refused 'element 3 of tensor dy is NaN'
poke y 3 "$nan"
refused 'element 3 of tensor y is NaN'
# finite, and beyond what float32 holds
poke x 7 "$huge"
evaluate 1 "$folder/case" --compare --out "$folder/never"
grep -qE '^attnscope: .*/case: element [0-9]+ of the computed y is (NaN|infinite): the inputs leave the range of float32$' \
    "$folder/err" || fail "results that are not finite: $(<"$folder/err")"
[[ ! -s $folder/out && ! -e $folder/never ]] || fail 'output of results that are not finite'

size=$(stat -c %s "$gqa")
for part in 0 7 8 100 3000 $((size - 1)); do
    head -c "$part" "$gqa" >"$folder/case"
    evaluate 2 "$folder/case" --compare --out "$folder/never"
    [[ $(wc -l <"$folder/err") == 1 && $(<"$folder/err") == "attnscope: $folder/case"[:\ ]* ]] ||
        fail "$part bytes: $(<"$folder/err")"
    [[ ! -s $folder/out && ! -e $folder/never ]] || fail "output of $part bytes"
done
evaluate 2 "$folder/absent" --compare
evaluate 2 "$gqa" --compare --mechanism flash
diff <(printf "attnscope: %s: flash has no option 'kv_heads'\n" "$gqa") "$folder/err" ||
    fail 'an option that flash has not'
evaluate 2 "$mqa" --compare --mechanism mqq
evaluate 0 "$mqa" --compare --mechanism mqa
evaluate 2 "$gqa" --compare --mechanism mqa
evaluate 2 "$one"
diff <(echo 'attnscope: eval: neither --out nor --compare: nothing to do') "$folder/err" ||
    fail 'nothing to do'
evaluate 2 "$one" --compare --dtype f16
grep -qF "f64, f32 or bf16" "$folder/err" || fail 'f16 is not refused by the choices'
evaluate 2 --compare

# ---- places that cannot be written ----------------------------------------------------------

# unwritten TEXT FILE: the output cannot be written
unwritten() {
    evaluate 1 "$one" --compare --out "$2"
    diff <(printf 'attnscope: cannot write %s: %s\n' "$2" "$1") "$folder/err" || fail "--out $2"
    [[ ! -s $folder/out ]] || fail 'a heading for results that were not written'
}
unwritten 'No such file or directory' "$folder/no/such/folder"
unwritten 'it is a folder' "$folder"
[[ ! -c /dev/full ]] || unwritten 'No space left on device' /dev/full
mkdir "$folder/small"
(
    trap '' XFSZ # a disk that is full after 512 bytes
    ulimit -f 1
    "$attnscope" eval "$one" --out "$folder/small/results" >"$folder/out" 2>/dev/null
)
[[ $? == 1 && ! -s $folder/out && -z $(ls -A "$folder/small") ]] || fail 'a file that was cut'

((failures == 0)) || exit 1
