#!/bin/sh
# bench/goals.py with programs that answer at once: its arithmetic, its table, what is skipped.
attnscope=$1
goals=$2/bench/goals.py
failures=0

check() { # check NAME EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then
        failures=$((failures + 1))
        printf 'FAILED: %s\n--- expected\n%s\n--- actual\n%s\n' "$1" "$2" "$3"
    fi
}

if ! command -v python3 >/dev/null; then
    echo 'skipped: no python3'
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# ---- a program whose figures are known ------------------------------------------------------
cat >"$folder/fake" <<'END'
#!/bin/sh
row() { # row MECHANISM DIRECTION SEQ SECONDS BYTES SHARE LIMIT
    printf '{"mechanism": "%s", "direction": "%s", "seq": %s, "head_dim": 64, ' "$1" "$2" "$3"
    printf '"time": {"median_s": %s}, "memory_bytes": %s, ' "$4" "$5"
    printf '"share_of_peak": {"median": %s}, "time_over_limit": {"median": %s}}' "$6" "$7"
}
case "$*" in
--version) echo 'fake 1.0' ;;
*'--dtype bf16'*) echo 'fake: flash has no core in bfloat16; more about it' >&2; exit 1 ;;
*peaks*) echo '{"peaks": [{"name": "fma_f32", "rate": {"median": 400}},
    {"name": "product_f32", "rate": {"median": 320}}]}' ;;
*4096-65536*)
    echo '{"rows": ['
    row "$4" forward 4096 1 100 0 0; echo ,
    row "$4" backward 4096 2 100 0 0; echo ,
    row "$4" forward 65536 16 3200 0 0; echo ,
    row "$4" backward 65536 32 3200 0 0
    echo ']}' ;;
*decode*) echo '{"rows": ['
    row flash decode 16384 1 1 0.81 1; echo ,
    row gqa decode 16384 1 1 0.79 1
    echo ']}' ;;
*'step'*'--seq 64'*) echo '{"step": {"median_s": 2.0}}' ;;
*) echo '{"rows": ['
    for name in performer retnet gla deltanet linear; do
        row "$name" forward 4096 1 1 0.4 1; echo ,
        row "$name" backward 4096 1 1 0.3 1
        [ "$name" = linear ] || echo ,
    done
    echo ']}' ;;
esac
END
cat >"$folder/train_gpt2" <<'END'
#!/bin/sh
echo 'step 0: train loss 5.1 (took 90000.0 ms)'
echo 'step 1: train loss 5.1 (took 7000.0 ms)'
echo 'step 2: train loss 5.0 (took 6000.0 ms)'
echo 'step 3: train loss 4.9 (took 8000.0 ms)'
END
chmod +x "$folder/fake" "$folder/train_gpt2"

rows() { # the table's rows for the given arguments
    python3 "$goals" "$folder/fake" --rounds 3 "$@" 2>/dev/null | grep '^|' | tail -n +3
}

check 'decode, and a type that is not there' \
    "| float32 flash layer decoding behind 16384 tokens: % of the memory's rate | ≥ 80 | 81 | reached | 1 |
| float32 gqa layer decoding behind 16384 tokens: % of the memory's rate | ≥ 80 | 79 | **missed** | 1 |
| bfloat16 flash layer decoding behind 16384 tokens: % of the memory's rate | ≥ 80 |  | skipped: flash has no core in bfloat16 | 2 |
| bfloat16 gqa layer decoding behind 16384 tokens: % of the memory's rate | ≥ 80 |  | skipped: flash has no core in bfloat16 | 2 |" \
    "$(rows --only decode)"
# 40 % of the multiply-adds are 50 % of products that reach 80 % of them
check 'recurrence' \
    '| linear forward, T = 4096: % of the rate of products of its chunks | ≥ 50 | 50 | reached | 1 2 |
| linear backward, T = 4096: % of the rate of products of its chunks | ≥ 50 | 37.5 | **missed** | 1 2 |' \
    "$(rows --only recurrence | grep linear)"
# 16 times the tokens: 16 times the time, 32 times the memory
check 'linear' \
    '| linear, T = 4096 to 65536: exponent of the time | ≤ 1.05 | 1 | reached | 1 |
| linear, T = 4096 to 65536: exponent of the memory | ≤ 1 | 1.25 | **missed** | 1 |' \
    "$(rows --only linear | head -2)"
check 'llm.c' '| float32 step of 4 x 64 tokens: llm.c over ours | ≥ 1 | 3.5 | reached | 1 2 |' \
    "$(rows --only llmc --llmc "$folder")"
check 'no llm.c' '| float32 step of 4 x 64 tokens: llm.c over ours | ≥ 1 |  | skipped: llm.c is not here: --llmc FOLDER |  |' \
    "$(rows --only llmc)"
check 'no PyTorch' 3 "$(rows --only torch-step --torch "$folder/none" | grep -c 'skipped: ')"

# ---- into a file ----------------------------------------------------------------------------
printf 'before\n<!-- goals: begin -->\nold\n<!-- goals: end -->\nafter\n' >"$folder/page.md"
rows --only decode --write "$folder/page.md" >"$folder/printed"
check 'written' 'before <!-- goals: begin --> <!-- goals: end --> after ' \
    "$(grep -E '^(before|after|old|<!)' "$folder/page.md" | tr '\n' ' ')"
check 'written: rows' "$(cat "$folder/printed")" "$(grep '^|' "$folder/page.md" | tail -n +3)"
echo plain >"$folder/plain.md"
check 'no place for it' "goals.py: $folder/plain.md lacks one line '<!-- goals: begin -->' and one '<!-- goals: end -->'" \
    "$(python3 "$goals" "$folder/fake" --only llmc --write "$folder/plain.md" 2>&1 >/dev/null |
        grep lacks)"
check 'no such group' \
    "goals.py: error: --only: 'speed' is none of step, torch-step, llmc, limit, torch-attention, ggml, recurrence, linear, decode, memory" \
    "$(python3 "$goals" "$folder/fake" --only speed 2>&1 | tail -1)"

# ---- the real program -----------------------------------------------------------------------
check 'bench has what goals reads' 'executed_flop memory_bytes share_of_peak time time_over_limit' \
    "$("$attnscope" bench core --seq 16 --heads 1 --head-dim 8 --batch 1 --repeats 1 --json |
        python3 -c 'import json, sys
row = json.load(sys.stdin)["rows"][0]
names = ("executed_flop", "memory_bytes", "share_of_peak", "time", "time_over_limit")
print(*(name for name in names if name in row))')"

[ "$failures" -eq 0 ]
