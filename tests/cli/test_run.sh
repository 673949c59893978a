#!/usr/bin/env bash
# attnscope run on tiny real runs: table, JSON, page, variations, Ctrl-C, killed workers, resume.
# Usage: test_run.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1
export ATTNSCOPE_DATA=$2/data OMP_WAIT_POLICY=passive
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    [[ ! -s err ]] || sed 's/^/    /' err
    failures=$((failures + 1))
}

# 60 of the sample's conversations: reading them all would take longer than a trial.
head -n 60 "$2/data/sample-permissive.jsonl" >rows.jsonl

tiny=(--data rows.jsonl --model gpt2-micro --batch 1 --seq 16 --loss all --steps 3 --evaluate-every 0
    --evaluate-batches 1 --timing-warmup 1 --decode-tokens 4 --rounds 1 --threads 1)

# run STATUS ARGUMENT...: stdout to the file out, stderr to err
run() {
    local status=$1 got=0
    shift
    "$attnscope" run "${tiny[@]}" "$@" >out 2>err </dev/null || got=$?
    [[ $got == "$status" ]] || fail "run $*: status $got, not $status"
}

# python NAME PROGRAM: checks the JSON in the file out
have_python=$(command -v python3 || true)
python() {
    [[ -n $have_python ]] || return 0
    python3 -c "import json
result = json.load(open('out'))
trials = result['trials']
$2" || fail "$1: JSON"
}
[[ -n $have_python ]] || echo 'python3 is absent: JSON was not read'

# ---- a table, a page, a store ---------------------------------------------------------------
run 0 --mechanisms flash,linear
[[ -s attnscope.db && -s attnscope-report.html ]] || fail 'store and page are not where they belong'
awk 'length > 80 { bad = 1; print } END { exit bad }' out || fail 'table: wider than 80 columns'
for mechanism in flash linear; do
    grep -Eq "^$mechanism +[0-9.]+ +[0-9.]+ +- +[0-9.]+ +- +[0-9.]+ +[0-9.]+ +[0-9.]+\$" out ||
        fail "table: no line of figures for $mechanism: $(<out)"
done
grep -q '^Counted work: equals the formula' out || fail 'table: counted work'
for trial in 1 2; do
    grep -Eq "^\[$trial/2\] round 1  (flash|linear) +done  left [0-9:]+\$" err ||
        fail "progress of trial $trial"
done
tail -n 1 err | grep -q 'left 0:00$' || fail 'progress: time left at the end'
[[ $(ls -A) == $'attnscope-report.html\nattnscope.db\nerr\nout\nrows.jsonl' ]] || fail "files left: $(ls -A)"

# Self-contained: nothing is fetched.
grep -q '<html' attnscope-report.html || fail 'page: no HTML'
if grep -Eio '(src|href)="?(https?:)?//[^" >]*|@import|url\(["'\'']?https?:' attnscope-report.html |
    grep -v '^href="https' | grep .; then
    fail 'page: fetches something'
fi
grep -q '>linear<' attnscope-report.html || fail 'page: no linear'

# ---- JSON -----------------------------------------------------------------------------------
run 0 --mechanisms flash,sliding:window=4:sinks=2 --rounds 2 --json --out none --store j.db
[[ ! -e none ]] || fail '--out none wrote a file'
python 'two mechanisms' "
assert result['run']['state'] == 'done' and result['run']['trials_done'] == 4
assert result['plan']['mechanisms'] == ['flash', 'sliding:window=4:sinks=2']
assert {(t['round'], t['position']) for t in trials} == {(1, 1), (1, 2), (2, 1), (2, 2)}
# the second round tries them the other way round
order = {(t['round'], t['position']): t['mechanism'] for t in trials}
assert order[1, 1] == order[2, 2] != order[1, 2] == order[2, 1]
for t in trials:
    assert t['state'] == 'done' and t['reason'] == '', t
    assert t['steps']['step'] == [1, 2, 3]
    assert [e['step'] for e in t['evaluations']] == [0, 3]
    figures = {f['name']: f for f in t['figures']}
    for f in figures.values():
        assert f['provenance'] in ('measured', 'integrated', 'counted', 'derived', 'modelled',
                                   'unavailable'), f
        assert f['source'], f
        if f['provenance'] == 'unavailable':
            assert f['value'] is None and f['why'], f
        else:
            assert isinstance(f['value'], (int, float)), f
        if f['provenance'] == 'modelled':
            assert f['why'] and f['low'] <= f['value'] <= f['high'], f
    for kind in ('matmul_flop', 'exponential_op', 'other_op'):
        counted = figures['step_' + kind]
        assert counted['provenance'] == 'counted'
        assert counted['value'] == figures['step_' + kind + '_closed_form']['value'] > 0
        assert counted['value'] == t['steps'][kind][-1]
    assert figures['work_equals_closed_form']['value'] == 1
    for name in ('step_time_s', 'latency_forward_s', 'latency_token_s', 'memory_peak_bytes',
                 'parameters', 'held_out_loss', 'energy_cpu_package_j', 'energy_modelled_cpu_j'):
        assert name in figures, name
"
# The store alone gives the same again.
cp out first
"$attnscope" report j.db --format json >again 2>err || fail 'report'
cmp -s first again || fail 'report: differs from what run printed'

# ---- hybrid stacks, and models that see the future -----------------------------------------------
run 0 --mechanisms 'flash+flash,sliding:window=4:sinks=2+sliding:window=4:sinks=2*2+gated-deltanet,sliding:window=4+flex:mask=full' \
    --allow-leak --store h.db --save . --sort time --out h.html
long='sliding:window=4:sinks=2*3+gated-deltanet' leak='sliding:window=4+flex:mask=full'
awk 'length > 80 { bad = 1; print } END { exit bad }' out || fail 'hybrid: wider than 80 columns'
# Figures come and go, the shape of the table stays; flash and the pattern may change places.
table="flash #
$long
 #
these see the future, so they are no language models and not ranked:
$leak
 #"
other="$long
 #
flash #
these see the future, so they are no language models and not ranked:
$leak
 #"
got=$(sed -n '/^mechanism/,/^$/p' out | sed -E '1,2d;/^$/d;s/ +[-0-9. ]+$/ #/')
[[ $got == "$table" || $got == "$other" ]] || fail "hybrid: table: $got"
grep -q '^Out of competition: 1 mechanism sees the future' out || fail 'hybrid: finding'
grep -q "<small class=\"warn\">sees the future</small>" h.html || fail 'hybrid: page'
for mechanism in flash "$long" "$leak"; do
    [[ -s $mechanism-round1.safetensors ]] || fail "hybrid: no model of $mechanism"
    rm -f "$mechanism-round1.safetensors"
done
"$attnscope" report h.db --format json >out 2>err || fail 'hybrid: report'
python 'hybrid' "
assert result['plan']['mechanisms'] == ['flash', '$long', '$leak']
assert [(m['mechanism'], m['sees_future']) for m in result['summary']] == [
    ('flash', False), ('$long', False), ('$leak', True)]
for t in trials:
    figures = {f['name']: f for f in t['figures']}
    leaks = t['mechanism'] == '$leak'
    assert t['state'] == 'done' and t['sees_future'] == leaks
    assert figures['work_equals_closed_form']['value'] == 1
    assert ('sees_future' in figures) == leaks
    if leaks: # two of four blocks; it reads a text at once, but does not decode
        assert figures['sees_future']['value'] == 2 and figures['latency_forward_s']['value'] > 0
        for name in ('latency_token_s', 'cache_bytes'):
            assert figures[name]['why'] == 'the model sees later tokens, so it cannot decode'
    else:
        assert figures['latency_token_s']['value'] > 0
caches = {t['mechanism']: f['value'] for t in trials for f in t['figures'] if f['name'] == 'cache_bytes'}
# floats: keys and values of 16 tokens in 4 blocks; of 6 in 3, and one state of 4 heads [64][64]
assert caches['flash'] == 4 * 4 * 2 * 16 * 256, caches
assert caches['$long'] == 4 * (3 * 2 * 6 * 256 + 4 * 64 * 64), caches
"
rm -f h.db h.html

# ---- variations -----------------------------------------------------------------------------
variations=(
    '--loss answers --seq 128'
    '--held-out 0'
    '--evaluate-every 2 --evaluate-batches 3'
    '--batch 5 --held-out 0.02'
    '--isa ref --pack'
    '--threads 2 --isa avx2'
    '--schedule cosine --clip 0 --learning-rate-warmup 0 --weight-decay 0'
    '--decode-tokens 0 --timing-warmup 0'
    '--cpu-watts 1:5 --seed 999999999999999'
)
for options in "${variations[@]}"; do
    if [[ $options == *avx2* ]] && ! grep -qw avx2 /proc/cpuinfo; then
        echo 'no AVX2 here: --isa avx2 was not tried'
        continue
    fi
    # shellcheck disable=SC2086
    run 0 --mechanisms flash $options --json --out none --store v.db
    python "$options" "
t, = trials
figures = {f['name']: f for f in t['figures']}
assert t['state'] == 'done' and figures['work_equals_closed_form']['value'] == 1
held_out = figures['held_out_loss']
assert (held_out['value'] is None) == ('--held-out 0' == '$options'), held_out
if '--evaluate-every 2' in '$options':
    assert [e['step'] for e in t['evaluations']] == [0, 2, 3]
"
    # The title is the command that does it again.
    if [[ -n $have_python && $options == *cosine* ]]; then
        title=$(python3 -c "import json; print(json.load(open('out'))['run']['title'])")
        cp out before
        (eval "\"$attnscope\" ${title#attnscope} --json --out none --store w.db") >out 2>err ||
            fail "the title does not run: $title"
        python "$title" "
before = json.load(open('before'))
assert before['plan'] == result['plan']
assert before['trials'][0]['steps']['loss'] == trials[0]['steps']['loss']
assert before['run']['title'] == result['run']['title']
"
    fi
done

# ---- bfloat16 -------------------------------------------------------------------------------
half=(--dtype bf16 --out none --json)
run 0 --mechanisms flash,gla,lsh,mla "${half[@]}" --store half.db
cp out half
python 'bf16' "
assert result['plan']['dtype'] == 'bf16' and ' --dtype bf16 ' in result['run']['title']
for t in trials:
    figures = {f['name']: f for f in t['figures']}
    assert t['state'] == 'done' and figures['work_equals_closed_form']['value'] == 1, t
    assert figures['product_factor_bits']['value'] == 16
    is_half_inside = t['mechanism'] in ('flash', 'mla')
    assert figures['core_factor_bits']['value'] == (16 if is_half_inside else 32), t['mechanism']
    assert figures['latency_forward_s']['value'] > 0 and figures['latency_token_s']['value'] > 0
"
# The same again, bit for bit; with other threads too where every product is our own.
run 0 --mechanisms flash,gla,lsh,mla "${half[@]}" --store half.db
python 'bf16 again' "
before = json.load(open('half'))['trials']
for a, b in zip(before, trials):
    assert a['mechanism'] == b['mechanism'] and a['steps']['loss'] == b['steps']['loss'], a
"
run 0 --mechanisms flash "${half[@]}" --store half.db --threads 2
python 'bf16 threads' "
before, = (t for t in json.load(open('half'))['trials'] if t['mechanism'] == 'flash')
assert before['steps']['loss'] == trials[0]['steps']['loss']
"
# Near float32, and never mistaken for it.
run 0 --mechanisms flash --out none --json --store single.db
python 'f32' "
half, = (t for t in json.load(open('half'))['trials'] if t['mechanism'] == 'flash')
assert '--dtype' not in result['run']['title']
figures = {f['name']: f for f in trials[0]['figures']}
assert figures['product_factor_bits']['value'] == figures['core_factor_bits']['value'] == 32
for a, b in zip(trials[0]['steps']['loss'], half['steps']['loss']):
    assert a != b and abs(a - b) < 2e-3, (a, b)
"
run 2 --mechanisms flash --out none --store single.db --resume --dtype bf16
grep -q '^attnscope: the newest run of the store has another plan' err || fail 'bf16: resumed f32'
"$attnscope" compare single.db half.db >out 2>err && fail 'bf16: compared with f32'
grep -q 'dtype: "f32" and "bf16"' err || fail 'bf16: compare'
"$attnscope" compare single.db half.db --force >out 2>err || fail 'bf16: compare --force'
"$attnscope" export half.db | grep -q '"product_factor_bits","bit",16' || fail 'bf16: csv'
"$attnscope" report half.db >out 2>err && grep -q 'dtype bf16' out || fail "bf16: table: $(<out)"
run 0 --mechanisms flash --dtype bf16 --dry-run
grep -q 'bfloat16' out || fail "bf16: plan: $(<out)"
run 2 --mechanisms flash --dtype fp16
grep -q "f32" err || fail 'fp16 is not refused'

# --save keeps the models, which --model takes.
mkdir models
run 0 --mechanisms flash,linear --save models --out none --store s.db
[[ $(ls models) == $'flash-round1.safetensors\nlinear-round1.safetensors' ]] ||
    fail "--save: $(ls models)"
run 0 --mechanisms flash --model models/flash-round1.safetensors --out none --store s.db
rm -r models

# ---- trials that fail -----------------------------------------------------------------------
# 30 000 steps are not reached: the run is stopped, or its workers are killed.
long=(--mechanisms "flash,linear" --steps 30000 --out x.html --store x.db)

# start ARGUMENT...: begins a run in a group of its own; its id is $run. Ends when it trains.
start() {
    local deadline=$((SECONDS + 60))
    : >err
    setsid "$attnscope" run "${tiny[@]}" "$@" >out 2>err </dev/null &
    run=$!
    until worker=$(pgrep -P "$run" | head -n 1) && [[ -n $worker ]] && [[ -s x.db ]] &&
        (($(wc -c <x.db-wal 2>/dev/null || echo 0) > 60000)); do
        if ((SECONDS > deadline)) || ! kill -0 "$run" 2>/dev/null; then
            fail 'the run did not begin'
            return 1
        fi
        sleep 0.05
    done
}

# finish STATUS: waits for it
finish() {
    local got=0
    wait "$run" || got=$?
    [[ $got == "$1" ]] || fail "status $got, not $1"
    ! pgrep -g "$run" >/dev/null || fail 'something of the run is left'
}

# Ctrl-C: the terminal sends SIGINT to the whole group.
if command -v setsid >/dev/null && command -v pgrep >/dev/null; then
    for signal in INT TERM; do
        rm -f x.*
        start "${long[@]}" || continue
        # Meanwhile no other process takes the run up.
        "$attnscope" run "${tiny[@]}" "${long[@]}" --resume >second 2>&1 </dev/null
        [[ $? == 1 ]] && grep -q 'run 1 of store .* is at work in another process' second ||
            fail "two at one run: $(<second)"
        kill -s "$signal" -- "-$run"
        finish 130
        [[ $(grep -v warning: err | tail -n 1) == 'attnscope: stopped; what is done is kept: go on with --resume' ]] ||
            fail "$signal: $(tail -n 1 err)"
        grep -q 'interrupted' out || fail "$signal: table: $(<out)"
        [[ -s x.html ]] || fail "$signal: no page"
    done

    # A worker killed from outside is one row, and the others go on. Both are killed here.
    rm -f x.*
    if start "${long[@]}"; then
        first=$worker
        kill -KILL "$first"
        for ((i = 0; i < 600; i++)); do
            worker=$(pgrep -P "$run" | head -n 1)
            [[ -n $worker && $worker != "$first" ]] && break
            sleep 0.05
        done
        kill -KILL "$worker"
        finish 1
        [[ $(grep -c 'crashed: the worker was ended by signal 9 (Killed)' err) == 2 ]] ||
            fail 'killed workers: progress'
        grep -q 'crashed' out || fail 'killed workers: table'
    fi

    # A run of a size that ends: stopped within its second trial, resumed, and equal to one that
    # was never stopped.
    same=(--mechanisms "flash,linear" --steps 20 --json --out none)
    run 0 "${same[@]}" --store whole.db
    cp out whole
    rm -f x.*
    if start "${same[@]}" --store x.db; then
        for ((i = 0; i < 1200; i++)); do
            grep -q '^\[1/2\].*done' err && break
            sleep 0.02
        done
        kill -s INT -- "-$run"
        finish 130
        grep -q '"state": "interrupted"' out || fail 'resume: the partial result does not say so'
        cp out partial
        run 0 "${same[@]}" --store x.db --resume
        python 'resumed' "
whole, partial = (json.load(open(name)) for name in ('whole', 'partial'))
assert partial['run']['id'] == result['run']['id'] and result['run']['state'] == 'done'
kept = [t for t in partial['trials'] if t['state'] == 'done']
assert len(kept) == 1 and kept[0] in trials, 'what was done is kept as it was'
assert len(trials) == 2
for a, b in zip(trials, whole['trials']):
    assert a['state'] == b['state'] == 'done' and a['mechanism'] == b['mechanism']
    assert a['steps']['loss'] == b['steps']['loss']
    for kind in ('matmul_flop', 'exponential_op', 'other_op'):
        assert a['steps'][kind] == b['steps'][kind]
    assert [e['loss'] for e in a['evaluations']] == [e['loss'] for e in b['evaluations']]
"
        # With other options it is another plan, and the store is left as it was.
        "$attnscope" report x.db --format json >before
        run 2 "${same[@]}" --store x.db --resume --seed 2
        grep -q '^attnscope: the newest run of the store has another plan' err ||
            fail 'resume: another plan'
        "$attnscope" report x.db --format json >again
        cmp -s before again || fail 'resume: a refused plan changed the store'
    fi
else
    echo 'setsid or pgrep is absent: signals were not tried'
fi

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
