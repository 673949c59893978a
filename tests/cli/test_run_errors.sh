#!/usr/bin/env bash
# What attnscope run refuses: one clear line, the status, and nothing written.
# Usage: test_run_errors.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1
export ATTNSCOPE_DATA=$2/data
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

mkdir empty
: >empty.jsonl
printf 'nonsense\n{"a": 1}\n' >bad.jsonl
printf '{"text": "one two three four"}\n{"text": "five six seven"}\n' >two.jsonl
head -c 3000 "$2/data/sample-permissive.jsonl" | head -n 1 >one.jsonl
printf 'not a safetensors file' >short.safetensors
printf 'This is a text, and longer than the header of SQLite files, which takes a hundred bytes or more.\n%.0s' {1..8} >text.db
ls -A >before

# refuse STATUS STDERR ARGUMENT...: exactly this on stderr, and no file more or less than before
refuse() {
    local status=$1 err=$2 got=0
    shift 2
    "$attnscope" run "$@" >out 2>err </dev/null || got=$?
    [[ $got == "$status" ]] || fail "run $*: status $got, not $status"
    [[ ! -s out ]] || fail "run $*: stdout: $(<out)"
    diff <(printf '%s\n' "$err") <(grep -v '^attnscope: warning:' err) || fail "run $*: stderr"
    rm -f out err
    diff before <(ls -A) || fail "run $*: files"
}

# usage STDERR ARGUMENT...: refused by the option's own rules
usage() {
    refuse 2 "attnscope run: $1"$'\nsee attnscope run --help' "${@:2}"
}

# ---- data -------------------------------------------------------------------------------------
refuse 2 'attnscope: cannot read missing.jsonl: No such file or directory' --data missing.jsonl
refuse 2 'attnscope: empty is a directory; name a file in it' --data empty
refuse 1 'attnscope: empty.jsonl holds no rows' --data empty.jsonl
refuse 1 'attnscope: bad.jsonl: none of 2 lines is a row; line 1: json_syntax. JSON Lines with "messages" or "text" is wanted, or plain text in a file named .txt' --data bad.jsonl
usage "--held-out must be between 0 and 0.9, not '0.9999'" --held-out 0.9999
usage "--held-out must be between 0 and 0.9, not '-0.1'" --held-out=-0.1
usage "--held-out must be a number, not 'nan'" --held-out nan
refuse 2 'attnscope: no row is left for training: the data set has 2, and a fraction of 0.9 is held out; take more rows or another fraction' --data two.jsonl --held-out 0.9
refuse 2 'attnscope: none of the 1 training rows has a target within its first 4 tokens; take longer sequences, or the loss on all tokens' --data one.jsonl --held-out 0 --seq 4
ATTNSCOPE_DATA=$folder/empty refuse 2 "attnscope: no readable sample-permissive.jsonl in $folder/empty, the folder that ATTNSCOPE_DATA names; unset it to use the installed one"
ATTNSCOPE_DATA=$folder/empty refuse 2 "attnscope: no readable gpt2/vocab.bpe in $folder/empty, the folder that ATTNSCOPE_DATA names; unset it to use the installed one" --data two.jsonl

# ---- the model --------------------------------------------------------------------------------
refuse 2 "attnscope: no model is called 'gpt2-mikro': take one of gpt2-micro, gpt2, gpt2-medium, gpt2-large, gpt2-xl" --model gpt2-mikro
refuse 2 'attnscope: cannot read ./missing: No such file or directory' --model ./missing
refuse 1 'attnscope: short.safetensors: truncated, or not a safetensors file: the header claims 7021991845529153390 of 14 bytes' --model short.safetensors
usage "--preset must be quick or paper, not 'papper'; did you mean 'paper'?" --preset papper
refuse 2 'attnscope: sequences of 513 tokens are longer than the 512 positions of gpt2-micro: use --seq 512 or less' --seq 513

# ---- mechanisms -------------------------------------------------------------------------------
refuse 2 'attnscope: an empty name among the mechanisms' --mechanisms ''
refuse 2 'attnscope: an empty name among the mechanisms' --mechanisms 'flash,,linear'
refuse 2 "attnscope: mechanism 'flash' is named twice" --mechanisms flash,linear,flash
refuse 2 "attnscope: unknown mechanism 'flahs'; did you mean 'flash'?" --mechanisms flahs
refuse 2 "attnscope: sliding has no option 'windw'; did you mean 'window'?" --mechanisms sliding:windw=3
refuse 2 "attnscope: sliding: option window takes a whole number from 1 to 268435456, not '0'" --mechanisms sliding:window=0
refuse 2 'attnscope: cross reads a memory beside the tokens, and a language model has none' --mechanisms flash,cross --allow-leak
refuse 2 'attnscope: gqa: kv_heads=5 does not divide the 4 heads' --mechanisms gqa:kv_heads=5
missing=': a mechanism is missing beside + or *, as in sliding*3+softmax'
times=': behind * comes a number of blocks from 1 to 128 and nothing more, as in sliding:window=64*3'
refuse 2 "attnscope: '+softmax'$missing" --mechanisms 'flash,+softmax'
refuse 2 "attnscope: 'sliding*3+'$missing" --mechanisms 'sliding*3+'
refuse 2 "attnscope: 'sliding*0'$times" --mechanisms 'flash,sliding*0+softmax'
refuse 2 "attnscope: 'sliding*'$times" --mechanisms 'sliding*'
refuse 2 "attnscope: 'sliding*3:window=64'$times" --mechanisms 'sliding*3:window=64'
refuse 2 "attnscope: unknown mechanism 'sofmax'; did you mean 'softmax'?" --mechanisms 'sliding*3+sofmax'
refuse 2 "attnscope: mechanism 'flash+linear' is named twice" --mechanisms 'flash+linear,flash+linear+flash*1+linear'
refuse 2 "attnscope: the pattern 'sliding*4+softmax' is 5 blocks long, but the model has 4: shorten it" --mechanisms 'sliding*4+softmax'

# Seeing the future: the layers decide, not the names.
leaks=' lets a token see later ones, which gives away what a language model is to predict; --allow-leak runs it, out of competition'
for mechanism in flex:mask=full flex:mask=prefix nystrom:causal=false linformer:causal=false; do
    refuse 2 "attnscope: $mechanism$leaks" --mechanisms "flash,$mechanism"
    refuse 2 "attnscope: $mechanism$leaks" --mechanisms "flash*3+$mechanism"
done
refuse 2 'attnscope: gla has no bidirectional form' --mechanisms gla:causal=false --allow-leak
refuse 2 'attnscope: flex:mask=full sees later tokens and cannot keep packed documents apart: leave out --pack' --mechanisms flex:mask=full --allow-leak --pack
refuse 2 'attnscope: nystrom: landmarks=64 do not divide the 250 tokens of the sequence' --mechanisms nystrom:causal=false:landmarks=64 --allow-leak --seq 250

# ---- numbers ----------------------------------------------------------------------------------
usage "--batch must be between 1 and 65536, not '0'" --batch 0
usage "--seq must be between 2 and 268435456, not '1'" --seq 1
usage "--steps must be between 1 and 1000000000, not '0'" --steps 0
usage "--rounds must be between 1 and 1000, not '0'" --rounds 0
usage "--learning-rate must be between 1e-12 and 10, not '0'" --learning-rate 0
usage "--learning-rate must be a number, not 'inf'" --learning-rate inf
usage "--seed must be between 0 and 1e+15, not '99999999999999999999'" --seed 99999999999999999999
usage "--threads must be between 0 and 256, not '257'" --threads 257
usage "--isa must be ref, avx2, avx512, amx or auto, not 'sse9'" --isa sse9
refuse 2 'attnscope: 1 steps leave none to time behind 2 of warm-up: use more --steps' --steps 1 --timing-warmup 2
refuse 2 "attnscope: processor watts '4': write idle and busy watts of one processor, the larger last, such as 0.64:3.97" --cpu-watts 4

# ---- results: found before the work, not after ---------------------------------------------------
refuse 1 "attnscope: store 'missing/x.db': cannot open it: No such file or directory" --store missing/x.db
refuse 2 'attnscope: a store needs a file name' --store ''
refuse 1 "attnscope: 'text.db' is not an attnscope store: name another file" --store text.db
refuse 2 "attnscope: there is no store 'x.db' to --resume from" --store x.db --resume
refuse 2 'attnscope: --force goes on with a run: it needs --resume' --store x.db --force
refuse 1 'attnscope: cannot write missing/x.html: No such file or directory' --out missing/x.html
refuse 1 'attnscope: cannot write empty: it is a folder' --out empty
refuse 2 "attnscope: --out needs a file name, or 'none'" --out ''
refuse 2 "attnscope: --out would overwrite the --store 'x.db'" --store x.db --out x.db
refuse 1 'attnscope: cannot save models in missing: No such file or directory' --save missing
refuse 1 'attnscope: cannot save models in text.db: Not a directory' --save text.db
usage "--sort must be loss, time, energy, memory, flops or latency, not 'joules'" --sort joules
if [[ -e /sys/class/powercap/intel-rapl:0 ]]; then
    echo 'this machine may measure energy: --sort energy was not tried'
else
    refuse 2 "attnscope: cannot sort by energy: nothing here measures it, as 'attnscope doctor' explains, and a modelled value does not rank mechanisms" --sort energy
fi
if [[ $EUID == 0 ]]; then
    echo 'root writes anywhere: folders without permission were not tried'
else
    chmod 555 empty
    refuse 1 'attnscope: cannot write empty/x.html: Permission denied' --out empty/x.html
    refuse 1 'attnscope: cannot save models in empty: Permission denied' --save empty
    chmod 755 empty
fi

# A store of a newer program.
if command -v sqlite3 >/dev/null; then
    cp "$2/tests/data/store/schema-1.db" newer.db
    sqlite3 newer.db 'PRAGMA user_version = 99'
    ls -A >before
    refuse 1 "attnscope: store 'newer.db' has schema 99, this attnscope knows schemas up to 3: update attnscope, or use another file" --store newer.db
else
    echo 'sqlite3 is absent: a store of a newer schema was not tried'
fi

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
