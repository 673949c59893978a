#!/usr/bin/env bash
# attnscope report of several runs, and its figures for papers: what is shown, what is refused, and
# gnuplot that is absent, fails, or meets a full disk.
# Usage: test_report_runs.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$(realpath "$1")
make_store=$(dirname "$attnscope")/tests/make_store
folder=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
    printf 'FAIL: %s\n' "$*"
    failures=$((failures + 1))
}

# run STATUS ARGUMENT...: stdout to the file out, stderr to err; it finds programs in $programs
run() {
    local status=$1 got=0
    shift
    PATH=${programs:-$PATH} "$attnscope" "$@" >out 2>err </dev/null || got=$?
    [[ $got == "$status" ]] || fail "attnscope $*: status $got, not $status: $(<err)"
    [[ $(wc -l <err) -le 1 ]] || fail "attnscope $*: more than one line: $(<err)"
}

"$make_store" a.db 9 1 "" 30 && "$make_store" slower.db 9 1.05 "" 30 &&
    "$make_store" other.db 9 1 "UPDATE run SET plan_json = replace(plan_json, '\"batch\": 2', '\"batch\": 4')" &&
    "$make_store" unmeasured.db 2 1 "DELETE FROM figure WHERE name IN ('energy_step_j', 'energy_cpu_package_j');
        INSERT INTO figure (trial_id, name, unit, value, provenance, source, has_interval, low, high, why)
        SELECT id, 'meter_share', '', 0.0001 * position, 'measured', 'meters', 0, NULL, NULL, '' FROM trial" ||
    fail 'making stores'

# ---- several runs ---------------------------------------------------------------------------
run 0 report a.db slower.db --sort time
awk 'length > 80 { bad = 1; print } END { exit bad }' out || fail 'wider than 80 columns'
[[ $(grep -c '^[AB]  run 1, ' out) == 2 ]] || fail "no line for each run: $(head -n 3 out)"
[[ $(grep -Eo '^[AB] [a-z]+' out | head -n 12 | sort -u | wc -l) == 12 ]] || fail "the ranking: $(<out)"
[[ $(grep -Ec '^  time .* \+5\.00 % +\+5\.00\.\. +\+5\.00 +[89] higher$' out) == 6 ]] || fail "B to A: $(<out)"
grep -q '^Runs: A to B, comparable. They followed each other' out || fail 'no word of drift'
run 0 report a.db slower.db a.db
grep -q '^C beside A$' out && grep -q '  C to A ' out || fail 'three runs'
cp a.db attnscope.db
run 0 report 1 slower.db@1 --out both.html
grep -q '<title>attnscope: 2 runs</title>' both.html || fail 'the page of two runs'

run 1 report a.db other.db
grep -q 'cannot be compared: batch: 2 and 4; --force' err || fail "batch: $(<err)"
run 0 report a.db other.db --force
grep -q '^NOT COMPARABLE, forced: batch: 2 and 4$' out || fail 'forced: no word of it'
run 2 report a.db slower.db --format json
run 2 report a.db slower.db --run 1
run 2 report a.db@1 --run 1
run 2 report a.db a.db@7
grep -q "has no run 7" err || fail "unknown run: $(<err)"
run 2 report a.db nothing.db
"$attnscope" report a.db a.db a.db a.db a.db a.db a.db a.db a.db 2>err
[[ $? == 2 ]] && grep -q 'too many operands' err || fail "nine runs: $(<err)"

# What reading meters cost is said with every run: here at most 0.06 %, in the sixth place.
run 0 report unmeasured.db
tr '\n' ' ' <out | grep -q "Cost of metering: 0.060 %. Of a trial's training time" || fail "cost: $(<out)"

# ---- figures ----------------------------------------------------------------------------------
mkdir bin
read -ra names <<<'loss-flop loss-joules loss-seconds loss-steps memory pareto-joules pareto-seconds time'
without_gnuplot=$(printf '%s.gp\n' "${names[@]}"; printf '%s.tsv\n' loss memory pareto-joules pareto-seconds time)
programs=$folder/bin run 0 report a.db --figures fig
grep -q 'apt-get install gnuplot-nox' err || fail "without gnuplot: $(<err)"
diff <(sort <<<"$without_gnuplot") <(ls fig | sort) || fail 'without gnuplot: files'

# A figure of energy that nobody measured is not there; nor is an older one any more.
programs=$folder/bin run 0 report unmeasured.db --figures fig
compgen -G 'fig/*joules*' >/dev/null && fail "unmeasured energy has figures: $(ls fig)"

# Programs that behave as a gnuplot in trouble does.
fake() { # fake COMMANDS: what gnuplot does
    printf '#!/bin/sh\n%s\n' "$1" >bin/gnuplot
    chmod +x bin/gnuplot
}
fake 'printf "\n\nplot x\n^\n\"%s\" line 7: undefined function\n" "$1" >&2; exit 1'
programs=$folder/bin run 1 report a.db --figures fig
grep -q "^attnscope: gnuplot failed on 'fig/loss-steps.gp': .*; scripts and data are whole" err ||
    fail "gnuplot fails: $(<err)"
[[ -s fig/loss.tsv && -s fig/time.gp ]] || fail 'gnuplot fails: no scripts'
fake 'kill -9 $$'
programs=$folder/bin run 1 report a.db --figures fig
grep -q 'it said nothing' err || fail "gnuplot is killed: $(<err)"
fake 'printf "%%PDF-1.5 the disk is full here" >"${1%.gp}.pdf"; exit 0'
programs=$folder/bin run 1 report a.db --figures fig
grep -q "left 'fig/loss-steps.pdf' unfinished" err || fail "half a figure: $(<err)"
fake 'i=0; while [ $i -lt 4000 ]; do echo "warning: much to say, which nobody may wait for" >&2; i=$((i + 1)); done
printf "%%%%EOF\n" >"${1%.gp}.pdf"; echo "</svg>" >"${1%.gp}.svg"'
programs=$folder/bin run 0 report a.db --figures fig

run 2 report a.db --figures fig --out page.html
run 1 report a.db --figures no/where
grep -q "cannot make the folder 'no/where': No such file" err || fail "no folder: $(<err)"
run 1 report a.db --figures a.db
grep -q 'Not a directory' err || fail "a file as folder: $(<err)"
if [[ $(id -u) == 0 ]] && command -v setpriv >/dev/null && chmod 755 "$folder" && mkdir locked; then
    setpriv --reuid=65534 "$attnscope" report a.db --figures locked >out 2>err </dev/null && fail 'a locked folder'
    grep -Eq 'Permission denied|unable to open' err || fail "a locked folder: $(<err)"
fi
mkdir small
if mount -t tmpfs -o size=16k none small 2>/dev/null; then
    run 1 report a.db --figures small
    grep -q 'No space left' err || fail "a full disk: $(<err)"
    compgen -G 'small/*.part' >/dev/null && fail 'a full disk: half a file'
    umount small
fi

# The real one.
if command -v gnuplot >/dev/null; then
    run 0 report a.db slower.db --figures drawn
    for name in "${names[@]}"; do
        [[ $(head -c 5 "drawn/$name.pdf") == %PDF- ]] || fail "$name.pdf"
        grep -q '</svg>' "drawn/$name.svg" || fail "$name.svg"
    done
    for name in loss-steps pareto-seconds; do
        grep -q 'B flash' "drawn/$name.svg" || fail "$name.svg lacks a label"
    done
else
    echo 'SKIP: no gnuplot here, the figures were not drawn'
fi

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
