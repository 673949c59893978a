#!/usr/bin/env bash
# cost and advise: tables to the letter, formats, catalogs of users, and what a person can get wrong.
# Usage: test_cost.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0
export XDG_CONFIG_HOME=$folder/config

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

# expect STATUS STDOUT STDERR ARGUMENT...: the program's status and exact output
expect() {
    local status=$1 out=$2 err=$3 got=0
    shift 3
    "$attnscope" "$@" >"$folder/out" 2>"$folder/err" </dev/null || got=$?
    [[ $got == "$status" ]] || fail "attnscope $*: status $got, not $status"
    diff <(printf '%s' "$out") "$folder/out" || fail "attnscope $*: stdout"
    diff <(printf '%s' "$err") "$folder/err" || fail "attnscope $*: stderr"
}

# refuse ERROR ARGUMENT...: status 2 and one line
refuse() {
    local error=$1
    shift
    expect 2 '' "attnscope: $error"$'\n' "$@"
}

# ---- counts, to the last digit -----------------------------------------------------------------

expect 0 'GPT-2 124M: training step, batch 2, f32
124 439 808 parameters; counts are exact, for the whole model

mechanism          tokens   matmul    useful      exp    other   memory    cache
softmax               512  817.0 G   788.0 G  326.9 M  4.424 G 2.90 GiB        -
flash                 512  797.0 G   788.0 G  336.4 M  4.010 G 2.62 GiB        -
' '' cost --mechanisms softmax,flash --batch 2 --dtype f32 --tile 64

command -v python3 >/dev/null || { echo 'SKIP: python3 is absent'; exit $((failures > 0)); }
number() { # FIELD... of the first row of a JSON answer
    local path=$1
    shift
    "$attnscope" cost "$@" --json | python3 -c "
import json, sys
row = json.load(sys.stdin)['rows'][0]
for key in sys.argv[1].split('.'):
    row = row[int(key) if key.isdigit() else key]
print(row)" "$path"
}
gpt2=(--batch 2 --seq 512 --dtype f32)
[[ $(number forward.matmul_flop "${gpt2[@]}" --mechanisms softmax) == 272320954368 ]] || fail 'eager, forward'
[[ $(number backward.matmul_flop "${gpt2[@]}" --mechanisms softmax) == 544641908736 ]] || fail 'eager, backward'
[[ $(number forward.matmul_flop "${gpt2[@]}" --tile 64) == 263865237504 ]] || fail 'flash, forward'
[[ $(number backward.matmul_flop "${gpt2[@]}" --tile 64) == 533166292992 ]] || fail 'flash, backward'
[[ $(number matmul_by_convention.torch "${gpt2[@]}" --mechanisms softmax) == 816962863104.0 ]] || fail 'torch'
[[ $(number predictions.0.time_s.provenance "${gpt2[@]}" --device l4 --dtype bf16) == modelled ]] || fail 'modelled'

[[ $(number parts.2.tile_queries "${gpt2[@]}" --tile 64) == 64.0 ]] || fail 'tile'

# ---- widths and formats ------------------------------------------------------------------------

for arguments in '--model llama3-8b --mechanisms all --seq 512-131072*4 --device h100-sxm,xeon-8480' \
    '--model deepseek-v3 --phase decode --seq 4096 --device b200-sxm --explain' \
    '--model deepseek-v2-lite --phase decode --latent naive --seq 4096' \
    '--model gemma2-9b --phase prefill --seq 8192 --device tpu-v5e --mechanisms flash,softmax,gla' \
    '--model vit-l14 --image 336 --phase prefill' '--model blip2-qformer --phase prefill --explain' \
    '--model llava-1.5-7b --text 128 --device m4-max --dtype fp16' \
    '--model bert-large --phase prefill --mechanisms all' '--documents 4 --mechanisms all' '--mechanisms sliding:window=128:sinks=4,flash --device l4' \
    '--phase prefill --queries 64 --seq 512' '--recompute full' '--list'; do
    # shellcheck disable=SC2086
    "$attnscope" cost $arguments >"$folder/out" 2>"$folder/err" || fail "cost $arguments: $(<"$folder/err")"
    awk 'length > 80 { bad = 1; print } END { exit bad }' "$folder/out" || fail "cost $arguments: width"
done
for length in 512 8192 131072; do
    "$attnscope" advise --model llama3-8b --seq $length --device h100-sxm --phase prefill >"$folder/$length" ||
        fail "advise $length"
    awk 'length > 80 { bad = 1; print } END { exit bad }' "$folder/$length" || fail "advise $length: width"
done
grep -q '^No difference that matters: attention between projections is 2% of the time' "$folder/512" || fail 'advise 512'
grep -q '^Take sliding: modelled 1\.[0-9]* times as fast as flash' "$folder/8192" || fail 'advise 8192'
grep -q '^Take sliding: modelled 3\.[0-9]* times as fast as flash' "$folder/131072" || fail 'advise 131072'
grep -q '^How sure: modelled' "$folder/512" || fail 'advise: how sure'
"$attnscope" advise --model llama3-8b --seq 8192 --device h100-sxm --phase prefill --quality exact |
    grep -q '^Take flash' || fail 'advise --quality exact'
"$attnscope" advise --model llama3-8b --seq 8192 --device h100-sxm --memory 24G |
    grep -q '^Nothing fits these limits' || fail 'advise --memory'
"$attnscope" advise --seq 512,1024 --device l4 --json | python3 -c '
import json, sys
answers = json.load(sys.stdin)
assert len(answers) == 2 and all(a["provenance"] == "modelled" and a["lines"] for a in answers)' ||
    fail 'advise --json'
"$attnscope" cost --mechanisms flash,gla --seq 512,1024 --device l4,h100-sxm --csv | python3 -c '
import csv, sys
rows = list(csv.DictReader(sys.stdin))
assert len(rows) == 8, len(rows)
assert {r["device"] for r in rows} == {"l4", "h100-sxm"}
assert all(None not in r and None not in r.values() for r in rows)
assert all(float(r["time_low_s"]) <= float(r["time_s"]) <= float(r["time_high_s"]) for r in rows)' || fail 'csv'
"$attnscope" cost --mechanisms flash --seq 512 --md | head -2 | tail -1 | grep -qx '|---|---:|---:|---:|---:|---:|---:|---:|' ||
    fail 'markdown'

page=$folder/page.html
"$attnscope" cost --mechanisms flash,gla --seq 512-8192*2 --device l4 --html "$page" >"$folder/out" || fail 'html'
[[ $(<"$folder/out") == "written: $page" ]] || fail 'html: what it says'
python3 - "$page" <<'PYTHON' || fail 'html: the page'
import json, re, sys
page = open(sys.argv[1], encoding='utf-8').read()
data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
assert '<' not in data and len(json.loads(data)['rows']) == 10
assert len(re.findall(r'<canvas ', page)) == 4
assert not re.search(r'(src|href)="', page), 'the page needs nothing from elsewhere'
PYTHON

# ---- catalogs of users -------------------------------------------------------------------------

source='"sources": {"*": {"from": "me", "confidence": "verified"}}'
cat >"$folder/mine.json" <<EOF
{"schema": 1, "devices": [{"name": "mine", "title": "Mine", "kind": "gpu", "architecture": "ada",
 "peaks": "dense", "memory_kind": "gddr", "memory_gb": 1, "bandwidth_gb_s": 100, "bf16_tflops": 50, $source}]}
EOF
"$attnscope" cost --devices "$folder/mine.json" --device mine | grep -q '^bf16 at 50 TFLOP/s, 100 GB/s' || fail 'a device of the user'
mkdir -p "$XDG_CONFIG_HOME/attnscope"
cp "$folder/mine.json" "$XDG_CONFIG_HOME/attnscope/devices.json"
"$attnscope" cost --device mine | grep -q '^mine: Mine' || fail 'devices.json of the user'
rm "$XDG_CONFIG_HOME/attnscope/devices.json"
sed 's/"bf16_tflops": 50/"bf16_tflop": 50/' "$folder/mine.json" >"$folder/typo.json"
refuse "$folder/typo.json: device 'mine' has an unknown field 'bf16_tflop'; did you mean 'bf16_tflops'?" \
    cost --devices "$folder/typo.json"
sed 's/"dense"/"sparse"/' "$folder/mine.json" >"$folder/sparse.json"
refuse "$folder/sparse.json: device 'mine': field 'peaks' is one of dense" cost --devices "$folder/sparse.json"
echo '{"schema": 1,' >"$folder/cut.json"
got=0
"$attnscope" cost --models "$folder/cut.json" 2>"$folder/err" >"$folder/out" || got=$?
[[ $got == 2 && $(wc -l <"$folder/err") == 1 && $(<"$folder/err") == "attnscope: $folder/cut.json:"* ]] ||
    fail "malformed JSON: $got $(<"$folder/err")"
got=0
"$attnscope" cost --models "$folder/none.json" 2>"$folder/err" >"$folder/out" || got=$?
[[ $got != 0 && $(wc -l <"$folder/err") == 1 ]] || fail "a missing file: $got $(<"$folder/err")"

# ---- this machine, and a run of it --------------------------------------------------------------

# A measurement replaces an older one and leaves other devices alone.
sed 's/"devices": \[/"devices": [{"name": "this"}, /' "$folder/mine.json" >"$folder/both.json"
"$attnscope" calibrate --seconds 0.01 --threads 1 --out "$folder/both.json" >"$folder/out" 2>"$folder/err" ||
    fail "calibrate: $(<"$folder/err")"
for probe in product projection head bfloat16 exponential other memory launch; do
    grep -q "^$probe  *[0-9.e+]* *[0-9.e+-]* to " "$folder/out" || fail "calibrate: no $probe"
done
for mechanism in softmax flash lsh mla gla nystrom gated-deltanet; do
    grep -Eq "^$mechanism +[0-9.]+ +[0-9.]+( +[0-9.-]+){6}$" "$folder/out" || fail "calibrate: no core of $mechanism"
done
awk 'length > 80 && !/^energy|^kept/ { bad = 1; print } END { exit bad }' "$folder/out" || fail 'calibrate: width'
[[ $(grep -c '"name": "this"' "$folder/both.json") == 1 && $(grep -c '"name": "mine"' "$folder/both.json") == 1 ]] ||
    fail 'calibrate: what is kept'
"$attnscope" cost --devices "$folder/both.json" --device this,mine --dtype f32 >"$folder/out" 2>"$folder/err" &&
    fail 'mine has no f32'
"$attnscope" cost --devices "$folder/both.json" --device this --dtype f32 |
    grep -q 'with constants measured on this machine' || fail 'cost on this machine'
"$attnscope" advise --devices "$folder/both.json" --device this --dtype f32 | grep -q '^How sure: calibrated' ||
    fail 'advise on this machine'
"$attnscope" cost --devices "$folder/both.json" --device this --dtype bf16 --json | python3 -c '
import json, sys
row = json.load(sys.stdin)["rows"][0]
held = row["memory"]["total_bytes"] + 2 * row["parameters"]
assert row["predictions"][0]["memory_bytes"] == held, (row["predictions"][0], held)' || fail 'bfloat16 on this machine'
sed 's/"flash": *[0-9.]*/"flush": 1/' "$folder/both.json" >"$folder/flush.json"
refuse "$folder/flush.json: device 'this': field 'core_forward' has a number for 'flush', which is not known here" \
    cost --devices "$folder/flush.json" --device this

store=$folder/store.db
export ATTNSCOPE_DATA=$2/data
head -n 60 "$2/data/sample-permissive.jsonl" >"$folder/rows.jsonl" # all of them would take longer than a trial
"$attnscope" run --mechanisms flash,linear --data "$folder/rows.jsonl" --evaluate-every 0 --loss all --model gpt2-micro --batch 1 --seq 32 --steps 3 --timing-warmup 1 --rounds 1 \
    --evaluate-batches 1 --decode-tokens 2 --threads 1 --store "$store" >"$folder/out" 2>&1 || fail "run: $(<"$folder/out")"
"$attnscope" cost --devices "$folder/both.json" --against-newest --store "$store" >"$folder/out" || fail 'against'
grep -q '^run 1: gpt2-micro, batch 1, 32 tokens, f32; predicted for this, a training step' "$folder/out" || fail 'against: head'
for name in flash linear; do
    grep -Eq "^$name +[0-9.]+ m?s +[0-9.]+ m?s +[+-][0-9]+%  (attention|mlp|norms|ends|head|update)( fwd| bwd)? +[+-][0-9.]+ [mu]?s  (products|exp|other|bytes|launch|cache), (all|here)$" "$folder/out" ||
        fail "against: $name: $(grep "^$name" "$folder/out")"
done
grep -Eq '^within 15%: [0-2] of 2$' "$folder/out" || fail 'against: sum'
grep -q '^What would fit all parts best (all): of the time that the model gives each,$' "$folder/out" || fail 'against: resources'
awk 'length > 80 { bad = 1; print } END { exit bad }' "$folder/out" || fail 'against: width'
"$attnscope" cost --devices "$folder/both.json" --against 1 --store "$store" --explain >"$folder/out" || fail 'against --explain'
for part in attention mlp norms ends head; do
    [[ $(grep -Ec "^$part (fwd|bwd) +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+$" "$folder/out") == 4 ]] ||
        fail "against --explain: $part"
done
"$attnscope" cost --devices "$folder/both.json" --against 1 --store "$store" --md | grep -q '^|---|---:|---:|---:|---|---:|---|$' || fail 'against --md'
refuse 'this machine was not measured yet: run attnscope calibrate' cost --against 1 --store "$store"

# What a run measured takes the model's place, and moves it where the sizes are near.
micro=(--devices "$folder/both.json" --model gpt2-micro --dtype f32 --device this --store "$store")
"$attnscope" advise "${micro[@]}" --seq 32 --mechanisms flash,linear,gla >"$folder/out" || fail 'advise, measured'
grep -q '^How sure: measured here at these sizes: 2 of 3 (\*)\. The others: calibrated' "$folder/out" || fail "advise, measured: $(<"$folder/out")"
grep -Eq '^flash +[0-9.]+ m?s\*' "$folder/out" && grep -Eq '^gla +[0-9.]+ m?s  ' "$folder/out" || fail 'advise, measured: marks'
"$attnscope" advise "${micro[@]}" --seq 64 --mechanisms flash,linear | grep -Eq '^linear +[0-9.]+ m?s~' || fail 'advise, near'
"$attnscope" advise "${micro[@]}" --seq 512 --mechanisms flash,linear | grep -q '^How sure: calibrated' || fail 'advise, far'
"$attnscope" advise "${micro[@]}" --phase prefill --seq 32 --mechanisms flash | grep -Eq '^flash +[0-9.]+ m?s\*' || fail 'advise, prefill'
"$attnscope" advise "${micro[@]}" --seq 32 --mechanisms flash,gla --json | python3 -c '
import json, sys
lines = {l["mechanism"]: l for l in json.load(sys.stdin)[0]["lines"]}
assert lines["flash"]["sure"] == lines["flash"]["time_s"]["provenance"] == "measured" and lines["flash"]["run"] == 1
assert lines["gla"]["sure"] == "calibrated" and lines["gla"]["run"] is None and lines["gla"]["time_s"]["provenance"] == "modelled"' ||
    fail 'advise --json, measured'
got=0
"$attnscope" advise --devices "$folder/both.json" --device this --dtype f32 --store "$folder/none.db" >"$folder/out" 2>"$folder/err" || got=$?
[[ $got != 0 && $(wc -l <"$folder/err") == 1 ]] || fail "advise: a missing store: $got $(<"$folder/err")"

# ---- what a person can get wrong ---------------------------------------------------------------

refuse "unknown model 'gpt-2'; did you mean 'gpt2'?" cost --model gpt-2
refuse "unknown device 'h100'; did you mean 'h100-sxm'?" cost --device h100
refuse "unknown device ''" cost --device ''
refuse "unknown model 'llama3'; did you mean 'llama3-8b'?" cost --model llama3
refuse "unknown device 'h100-smx'; did you mean 'h100-sxm'?" cost --device h100-smx
refuse "unknown mechanism 'flahs'; did you mean 'flash'?" cost --mechanisms flahs
refuse "sliding has no option 'windw'; did you mean 'window'?" cost --mechanisms sliding:windw=3
refuse 'a100-80-sxm has no unit for fp8: take one of f32, tf32, bf16, fp16, int8' cost --device a100-80-sxm --dtype fp8
refuse 'gaudi2 has no published rate of fp16: take one of bf16, fp8' cost --device gaudi2 --dtype fp16
refuse "--seq: '512-' is no range: write sizes like 512, 512,1024, 512-16384*2 or 512-2048+512" cost --seq 512-
refuse '--seq: 536870912 tokens are more than 2^28' cost --seq 512M
refuse '--queries 9 is above --seq 8: new tokens are the last of the sequence' cost --seq 8 --queries 9 --phase decode
refuse 'bert-base does not decode: use --phase prefill' cost --model bert-base --phase decode
refuse 'gpt2 sees no image: leave out --image' cost --image 224
refuse 'llava-1.5-7b reads an image and a text: give --text N' cost --model llava-1.5-7b
refuse 'vit-b16: an image of 230 pixels is no multiple of the patch of 16' cost --model vit-b16 --image 230
refuse 'vit-b16 has its own length: leave out --seq' cost --model vit-b16 --seq 512
refuse 'llava-1.5-7b is counted for --phase prefill: count its language model apart' \
    cost --model llava-1.5-7b --text 9 --phase train
refuse '512 tokens cannot be 5 equal documents' cost --documents 5
refuse 'flash: batch 65536 with 268435456 tokens is more work than 64-bit counts hold: take smaller sizes' \
    cost --model llama3-70b --batch 65536 --seq 256M
refuse 'llama3-70b: batch 65536 with 49152 tokens is more than 64-bit counts hold: take smaller sizes' \
    cost --model llama3-70b --batch 65536 --seq 48K
refuse 'this machine was not measured yet: run attnscope calibrate' cost --device this
refuse 'cost: --json, --csv, --md and --explain exclude each other' cost --json --csv
refuse '--store has runs of this machine: it goes with --device this' advise --device l4 --store attnscope.db
refuse "unknown mechanism 'flahs'; did you mean 'flash'?" calibrate --check flahs --out "$folder/never.json"
[[ ! -e $folder/never.json ]] || fail 'calibrate: measured before it read its options'
sizes() { # WIDTH HEADS KV_HEADS HEAD_DIM: a model file
    cat >"$folder/sizes.json" <<EOF
{"schema": 1, "models": [{"name": "m", "title": "M", "kind": "decoder", "norm": "layer", "activation": "gelu-tanh",
 "position": "learned", "layers": 2, "width": $1, "heads": $2, "kv_heads": $3, $4 "ffn": 256, "vocabulary": 1000,
 "positions": 512, $source}]}
EOF
}
sizes 96 3 3 ''
refuse "$folder/sizes.json: model 'm': field 'head_dim' is missing: it is not always width / heads, so write it" \
    cost --models "$folder/sizes.json" --model m
sizes 96 3 2 '"head_dim": 32,'
refuse "$folder/sizes.json: model 'm': field 'kv_heads' does not divide 'heads'" cost --models "$folder/sizes.json" --model m
sizes 96 3 3 '"head_dim": 0,'
refuse "$folder/sizes.json: model 'm': field 'head_dim' takes a whole number from 1 to 65536" \
    cost --models "$folder/sizes.json" --model m
sizes 100 3 3 '"head_dim": 32,'
refuse '3 heads do not divide the width 100' cost --models "$folder/sizes.json" --model m --mechanisms gla
refuse 'v100-sxm2-32 has no unit for bf16: take one of f32, fp16, int8' cost --device v100-sxm2-32
refuse 'advise: on which device? give --device, such as h100-sxm' advise
refuse 'advise: vit-b16 has one length only: attnscope cost compares mechanisms' advise --model vit-b16 --device l4
got=0
"$attnscope" cost --list >/dev/full 2>"$folder/err" || got=$?
[[ $got == 1 && $(<"$folder/err") == 'attnscope: cannot write to stdout: No space left on device' ]] || fail '/dev/full'

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
