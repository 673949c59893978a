#!/usr/bin/env bash
# The log of a wall meter attached to a run that is over, as a person does it.
# Usage: test_attach.sh ATTNSCOPE SOURCE_DIR
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

# refuse STATUS STDERR ARGUMENT...: exactly this on stderr, nothing on stdout
refuse() {
    local status=$1 err=$2 got=0
    shift 2
    "$attnscope" attach "$@" >out 2>err </dev/null || got=$?
    [[ $got == "$status" ]] || fail "attach $*: status $got, not $status"
    [[ ! -s out ]] || fail "attach $*: stdout: $(<out)"
    diff <(printf '%s\n' "$err") err || fail "attach $*: stderr"
}

printf '1 50\n2 50\n3 50\n' >elsewhere.csv
refuse 2 'attnscope: which log is to be attached? Name it with --meter-csv' x.db
refuse 2 "attnscope: there is no store 'x.db': 'attnscope run' makes one" x.db --meter-csv elsewhere.csv
[[ ! -e x.db ]] || fail 'attach made a store'
cp "$2/tests/data/store/schema-1.db" old.db
chmod 644 old.db
refuse 2 'attnscope: run 1 does not say when its trials were at work: it has none, or an older attnscope made it' old.db --meter-csv elsewhere.csv
if ! command -v python3 >/dev/null; then
    echo 'python3 is absent: no log was made'
    exit $((failures > 0))
fi

"$attnscope" run --store x.db --out none --mechanisms flash,linear --model gpt2-micro --batch 1 --seq 32 \
    --rounds 1 --steps 12 --timing-warmup 1 --evaluate-batches 1 --evaluate-every 0 --decode-tokens 1 --cool-down 2 >out 2>err ||
    fail "run: $(<err)"
"$attnscope" export x.db --format json >run.json || fail 'export'
# A reading every 10 ms, by a clock 7.25 s behind; 90 W at rest, 250 W at work.
python3 - <<'E2' || fail 'the run says when it was at work'
import json
run = json.load(open('run.json'))
spans = [(s['begin_s'], s['end_s'], s['timed']) for t in run['trials'] for s in t['spans']]
work = [s for s in spans if not s[2]]
assert len(run['trials']) == 2 and len(work) == 2, spans
for t in run['trials']:
    timed = sum(s['end_s'] - s['begin_s'] for s in t['spans'] if s['timed'])
    train = [f['value'] for f in t['figures'] if f['name'] == 'train_time_s'][0]
    assert abs(timed - train) < 0.02, (timed, train)
    whole = [s for s in t['spans'] if not s['timed']][0]
    assert all(whole['begin_s'] <= s['begin_s'] <= s['end_s'] <= whole['end_s'] for s in t['spans'])
begin, end = min(s[0] for s in work), max(s[1] for s in work)
with open('wall.csv', 'w') as out:
    print('epoch,watts', file=out)
    t = begin - 10
    while t < end + 10:
        at_work = any(a <= t < b for a, b, _ in work)
        print(f'{t - 7.25:.4f},{250 if at_work else 90}', file=out)
        t += 0.01
E2
"$attnscope" attach x.db --meter-csv elsewhere.csv 2>err && fail 'attached a log of other times'
grep -qE '^attnscope: the log of the meter and the run do not overlap: the log ends [0-9]+ s before its begin; --meter-offset is added to its times$' err ||
    fail "other times: $(<err)"
sed '3s/.*/late/' wall.csv >bad.csv
refuse 1 "attnscope: bad.csv:3: a line must be 'epoch_seconds watts [joules]'" x.db --meter-csv bad.csv

"$attnscope" attach x.db --meter-csv wall.csv >out 2>err || fail "attach: $(<err)"
[[ ! -s err ]] || fail "attach: stderr: $(<err)"
sum=$(sha256sum wall.csv)
grep -qx "run 1: 2 of 2 trials have energy_system_j by wall.csv (sha256 ${sum:0:12})" out || fail "attach: $(<out)"
grep -qE "^the log's clock is 7\.2[0-9]+ s behind this machine's, within 0\.[0-9]+ s: at work it shows 1[56][0-9][0-9.]* W more than at rest, which explains (100|9[0-9])\.[0-9] % of its variance$" out ||
    fail "attach: $(<out)"
grep -qx 'a reading every 0.01 s; its power is integrated' out || fail "attach: $(<out)"
"$attnscope" export x.db --format json >after.json
python3 - "${sum:0:64}" <<'E2' || fail 'energies'
import json, sys
for t in json.load(open('after.json'))['trials']:
    f = {f['name']: f for f in t['figures']}
    energy = f['energy_system_j']
    assert abs(energy['value'] / (250 * f['train_time_s']['value']) - 1) < 0.05, energy
    assert energy['provenance'] == 'integrated' and 'wall.csv, sha256 ' + sys.argv[1] in energy['source']
    assert abs(f['energy_step_j']['value'] * 11 / energy['value'] - 1) < 1e-9
    assert abs(f['meter_shift_s']['value'] + 7.25) < 0.1
E2
"$attnscope" report x.db --format table >table || fail 'report'
grep -q 'J/step' table || fail "no energies in the table"
refuse 2 "attnscope: every trial of run 1 has its energy_system_j (wall.csv, sha256 ${sum:0:64}, attached after the run): nothing is counted twice" x.db --meter-csv wall.csv

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
