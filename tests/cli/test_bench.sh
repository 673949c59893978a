#!/bin/sh
# attnscope bench core, layer and peaks with tiny sizes: the shape of tables and JSON, at most 80
# columns, ranges of sizes, and one clear line for what cannot be.
attnscope=$1
failures=0

check() { # check NAME EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then
        failures=$((failures + 1))
        printf 'FAILED: %s\n--- expected\n%s\n--- actual\n%s\n' "$1" "$2" "$3"
    fi
}

refused() { # refused NAME TEXT ARGUMENT...
    name=$1 text=$2
    shift 2
    message=$("$attnscope" bench "$@" 2>&1)
    check "$name: status" 2 $?
    check "$name: text" "attnscope: $text" "$message"
}

small='--repeats 2 --threads 2 --batch 1 --heads 2 --head-dim 8'

# ---- core -----------------------------------------------------------------------------------
table=$("$attnscope" bench core $small --seq 16-64*2 --mechanisms flash,linear \
    --direction forward,backward,decode)
check 'core: status' 0 $?
check 'core: width' '' "$(printf '%s\n' "$table" | awk 'length > 80')"
check 'core: head' 'cores, batch 1, float32, causal, 2 threads' \
    "$(printf '%s\n' "$table" | sed -n '1s/, [a-z0-9]*$//p')"
check 'core: groups' 'forward, 2 heads of 8
backward, 2 heads of 8
decode, 2 heads of 8' "$(printf '%s\n' "$table" | grep 'heads of')"
check 'core: rows' '16 flash
16 linear
32 flash
32 linear
64 flash
64 linear' "$(printf '%s\n' "$table" | sed -n '/^forward/,/^$/p' | awk '$1 ~ /^[0-9]+$/ {print $1, $2}')"
check 'core: crossovers' 3 "$(printf '%s\n' "$table" | grep -c ', 2 x 8: linear is ')"
check 'core: peaks' 'fma_f32
exp_f32
read_memory' "$(printf '%s\n' "$table" | sed -n '/^peaks during/,$p' | awk 'NR > 1 {print $1}')"
check 'core: a recurrence' 'forward backward decode ' "$("$attnscope" bench core $small --seq 16 \
    --mechanisms gla --direction forward,backward,decode --json |
    sed -n 's/.*"direction": "\(.*\)",/\1/p' | tr '\n' ' ')"
check 'core: a long label has a line of its own' '       sliding:window=8:sinks=1:causal=true' \
    "$("$attnscope" bench core $small --seq 16 --direction forward \
        --mechanisms sliding:window=8:sinks=1:causal=true | grep sliding)"

json=$("$attnscope" bench core $small --seq 16,48 --heads 1,2 --mechanisms sdpa --json)
check 'core json: rows' 8 "$(printf '%s\n' "$json" | grep -c '"useful_flop"')"
check 'core json: sizes' '16 16 48 48 16 16 48 48 ' \
    "$(printf '%s\n' "$json" | sed -n 's/.*"seq": \([0-9]*\).*/\1/p' | tr '\n' ' ')"
# 4 FLOPs for each of 16 17 / 2 pairs of one head of 8; backward 2.5 times as many
check 'core json: useful' '4352.0 10880.0 ' \
    "$(printf '%s\n' "$json" | sed -n 's/.*"useful_flop": \([0-9.]*\).*/\1/p' | head -2 | tr '\n' ' ')"

# ---- layer ----------------------------------------------------------------------------------
check 'layer: rows' 'retnet forward
retnet decode' "$("$attnscope" bench layer $small --seq 16 --mechanisms retnet \
    --direction forward,decode --json |
    sed -n 's/.*"mechanism": "\(.*\)",/\1/p; s/.*"direction": "\(.*\)",/\1/p' | paste -d ' ' - -)"

table=$("$attnscope" bench layer $small --seq 16 --mechanisms flash,mla --dtype bf16,f32 \
    --direction forward,decode)
check 'layer, two types: width' '' "$(printf '%s\n' "$table" | awk 'length > 80')"
check 'layer, two types: head' 'layers, batch 1, float32 and bfloat16, causal, 2 threads' \
    "$(printf '%s\n' "$table" | sed -n '1s/, [a-z0-9]*, [^,]*$//p')"
check 'layer, two types: rows' 'flash bf16
mla bf16
flash f32
mla f32' "$(printf '%s\n' "$table" | sed -n '/^decode/,/^$/p' | awk '$1 == 16 {print $2, $3}')"
check 'layer, two types: one length crosses nothing' '' \
    "$(printf '%s\n' "$table" | grep crossovers)"
# a cache of 16 keys and values of 16 floats, four weights of 16 x 16, their biases
bytes=$("$attnscope" bench layer $small --seq 16 --mechanisms flash --direction decode --json |
    sed -n 's/.*"read_bytes": \([0-9.]*\).*/\1/p')
check 'layer: bytes read' $(((2 * 16 * 16 + 4 * 16 * 16 + 4 * 16) * 4)).0 "$bytes"

# ---- peaks ----------------------------------------------------------------------------------
check 'peaks' 'fma_f32
product_f32
exp_f32
read_l1
read_l2
read_memory' "$("$attnscope" bench peaks --repeats 1 --threads 1 --isa ref |
    awk 'NR > 3 {print $1}')"
check 'peaks json' 6 "$("$attnscope" bench peaks --repeats 1 --threads 1 --isa ref --json |
    grep -c '"unit"')"

# ---- what cannot be -------------------------------------------------------------------------
refused 'no such benchmark' "bench: 'cores' is no benchmark: use step, core, layer or peaks" cores
refused 'a range without a step' \
    "--seq: '16-64' lacks a step: write sizes like 512, 512,1024, 512-16384*2 or 512-2048+512" \
    core --seq 16-64
refused 'a factor of one' \
    "--seq: '16-64*1' has no usable step: write sizes like 512, 512,1024, 512-16384*2 or 512-2048+512" \
    core --seq '16-64*1'
refused 'not ascending' \
    "--heads: '4,2' does not ascend: write sizes like 512, 512,1024, 512-16384*2 or 512-2048+512" \
    core --heads 4,2
refused 'no size' \
    "--head-dim: '0' is no list of sizes: write sizes like 512, 512,1024, 512-16384*2 or 512-2048+512" \
    core --head-dim 0
refused 'a direction' \
    "--direction: 'sideways': use each of forward, backward, decode once at most" \
    core --direction sideways
refused 'a direction twice' \
    "--direction: 'decode,decode': use each of forward, backward, decode once at most" \
    core --direction decode,decode
refused 'several sizes for a step' "bench step: --seq '64,128' is 2 sizes: it takes one" \
    step --seq 64,128
refused 'a mistyped mechanism' "unknown mechanism 'flsh'; did you mean 'flash'?" \
    core --seq 16 --mechanisms flsh
refused 'a pattern' "--mechanisms: 'flash+linear' is several mechanisms: give each one alone" \
    core --mechanisms flash+linear
refused 'decoding one token' 'decoding needs a sequence of at least 2 tokens' \
    core --seq 1 --direction decode
refused 'a type' "--dtype: 'f16': use f32, bf16 or f32,bf16" core --dtype f16
refused 'a step in two types' "bench step: --dtype 'f32,bf16' is several: it takes one" \
    step --dtype f32,bf16
message=$("$attnscope" bench core --seq 16 --mechanisms mla 2>&1)
check 'no core: status' 1 $?
check 'no core: text' 'attnscope: mla has no core between its projections: use bench layer' \
    "$message"
message=$("$attnscope" bench core --seq 16 --mechanisms gla --dtype bf16 2>&1)
check 'no bfloat16 core: status' 1 $?
check 'no bfloat16 core: text' 'attnscope: gla has no core in bfloat16; bench layer takes '\
'bf16, with float32 between the projections' "$message"

[ "$failures" -eq 0 ]
