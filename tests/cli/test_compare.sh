#!/usr/bin/env bash
# attnscope compare and export on made-up runs: exact output, refusals, gates and their statuses.
# Usage: test_compare.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1
make_store=$(dirname "$attnscope")/tests/make_store
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

# run STATUS ARGUMENT...: stdout to the file out, stderr to err
run() {
    local status=$1 got=0
    shift
    "$attnscope" "$@" >out 2>err </dev/null || got=$?
    [[ $got == "$status" ]] || fail "attnscope $*: status $got, not $status: $(<err)"
}

"$make_store" a.db 9 1 && "$make_store" slower.db 9 1.05 && "$make_store" few.db 3 1.05 &&
    "$make_store" other.db 9 1 "UPDATE run SET plan_json = replace(plan_json, '\"batch\": 2', '\"batch\": 4')" &&
    "$make_store" machine.db 9 1 "UPDATE run SET environment_json = '{\"cpu\": {\"model_name\": \"x\"}}'" &&
    "$make_store" modelled.db 9 1 "UPDATE figure SET provenance = 'modelled' WHERE name = 'energy_step_j'" &&
    "$make_store" unmeasured.db 9 1 "DELETE FROM figure WHERE name = 'energy_step_j'" ||
    fail 'making stores'

# ---- two runs -------------------------------------------------------------------------------
run 0 compare a.db slower.db
awk 'length > 80 { bad = 1; print } END { exit bad }' out || fail 'wider than 80 columns'
for mechanism in softmax sdpa flash gqa sliding linear; do
    grep -qx "$mechanism" out || fail "no $mechanism"
done
[[ $(grep -Ec '^  time .* \+5\.00 % +\+5\.00\.\. +\+5\.00 +[89] higher$' out) == 6 ]] || fail "time: $(<out)"
[[ $(grep -Ec '^  memory .* \+0\.00 %  .* [89] the same$' out) == 6 ]] || fail "memory: $(<out)"
grep -q '^The runs followed each other' out || fail 'two runs: no word of drift'

# One run and itself has no difference; a mechanism against another has.
run 2 compare a.db
grep -q 'name two of its mechanisms' err || fail 'one run: no reason'
run 0 compare a.db --a softmax --b gqa
grep -Eq '^  time .* -[0-9.]+ % +-[0-9.]+\.\. +-[0-9.]+ +8 lower$' out || fail "softmax and gqa: $(<out)"
! grep -q 'followed each other' out || fail 'one run: a word of drift'
run 0 compare a.db --a softmax --b softmax --json
if command -v python3 >/dev/null; then
    python3 -c "
import json
r = json.load(open('out'))
assert r['one_run'] and len(r['comparisons']) == 6
for c in r['comparisons']:
    assert c['ratio'] == 1 and c['verdict'] in ('not resolved', 'the same'), c" || fail 'JSON'
fi
run 0 compare a.db --a softmax --b gqa --interval bootstrap --seed 3
grep -Eq '^  time .* 8 lower$' out || fail 'bootstrap'
run 2 compare a.db --a softmax --b nothing

# Below six rounds nothing is claimed.
run 0 compare a.db few.db
[[ $(grep -c 'n too small$' out) -ge 6 ]] || fail "few rounds: $(<out)"
! grep -Eq '^  time .*(higher|lower|resolved)$' out || fail 'few rounds: a claim'

# ---- what must not be compared --------------------------------------------------------------
run 1 compare a.db other.db
grep -q 'cannot be compared: batch: 2 and 4; --force' err || fail "batch: $(<err)"
run 0 compare a.db other.db --force
grep -q '^NOT COMPARABLE, forced: batch: 2 and 4$' out || fail 'forced: no word of it'
run 1 compare a.db machine.db
grep -q 'cannot be compared: cpu.model_name' err || fail "machine: $(<err)"
run 1 compare a.db modelled.db
grep -q 'energy_step_j of softmax: measured and modelled' err || fail "provenance: $(<err)"

# ---- gates ----------------------------------------------------------------------------------
run 0 compare a.db slower.db --fail-if 'time>+6%'
run 4 compare a.db slower.db --fail-if 'time>+3%'
grep -q "^attnscope: time>+3%: failed for" err || fail "gate: $(<err)"
run 4 compare a.db slower.db --fail-if 'memory>+1%,energy > +3%'
run 4 compare slower.db a.db --fail-if 'time<-3%'
run 0 compare a.db slower.db --fail-if 'loss>+0.01'
run 4 compare a.db slower.db --fail-if 'loss>-0.01'
run 1 compare a.db few.db --fail-if 'time>+3%'
grep -q 'too few rounds' err || fail "few rounds: $(<err)"
run 4 compare a.db few.db --a flash --b linear --force --fail-if 'step_matmul_flop<-1%'
run 3 compare unmeasured.db unmeasured.db --a softmax --b flash --fail-if 'energy>+3%'
run 3 compare modelled.db modelled.db --a softmax --b flash --fail-if 'energy>+3%'
for wrong in 'time' 'time>' 'time>x%' 'time>3' 'speed>3%' 'loss>3%' '>3%' 'time=3%' 'time>3%x'; do
    run 2 compare a.db slower.db --fail-if "$wrong"
done

# ---- export ---------------------------------------------------------------------------------
for format in md csv json jsonl sql; do
    run 0 export a.db --format "$format"
    cp out "whole.$format"
    run 0 export a.db --out "file.$format"
    cmp -s "whole.$format" "file.$format" || fail "export $format: file and stdout differ"
done
head -n 1 whole.csv | grep -q '^run,trial,round,position,mechanism,state,figure' || fail 'csv: columns'
[[ $(wc -l <whole.jsonl) == 54 ]] || fail 'jsonl: one line a trial'
grep -q '^| gqa | .* M |' whole.md || fail "md: $(head -n 4 whole.md)"
if command -v python3 >/dev/null; then
    python3 -c "
import csv, json, sqlite3
rows = list(csv.DictReader(open('whole.csv')))
db = sqlite3.connect(':memory:')
db.executescript(open('whole.sql').read())
assert db.execute('SELECT count(*) FROM attnscope_figure').fetchone()[0] == len(rows) > 1000
for row, stored in zip(rows, db.execute('SELECT * FROM attnscope_figure ORDER BY rowid')):
    assert row['provenance'] and row['source'], row
    assert row['provenance'] != 'unavailable' or (row['value'] == '' and row['why']), row
    assert row['value'] == '' and stored[8] is None or float(row['value']) == stored[8]
    assert stored[4] == row['mechanism'] and stored[13] == row['why']
lines = [json.loads(line) for line in open('whole.jsonl')]
assert lines == [dict(t, run=1, schema=1) for t in json.load(open('whole.json'))['trials']]
" || fail 'export: contents'
fi
run 2 export a.db --format xml
run 1 export a.db --out no/file.csv
"$attnscope" export a.db >/dev/full 2>err && fail 'a full disk went unnoticed'

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
