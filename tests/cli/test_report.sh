#!/usr/bin/env bash
# attnscope report and list on a store that the project carries: exact output, files, mistakes,
# and the page in a real browser where there is one.
# Usage: test_report.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1 source_dir=$2
store=$source_dir/tests/data/store/schema-1.db
# In memory where possible: a browser's profile on a busy disk takes a minute.
folder=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$folder"' EXIT
failures=0

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

table='run 1, 2026-11-22T04:19:37Z, done: attnscope run --rounds 3 --steps 60

mechanism  held-out  step   +/-  tokens    energy  memory   matmul  token
              nat M  ms M     %   1/s D  J/step -   MiB C  GFLOP C   ms M
gqa           9.089   110     -    4640         -   184.8    10.07   1.52
sliding       9.090   116 0.038    4410         -   199.7    10.27   1.63
flash         9.090   118  0.72    4330         -   202.9    10.87   1.69
sdpa          9.090   123  0.55    4160         -   207.3    11.27   1.69
linear        9.090   128  0.13    4010         -   208.2     9.97   1.45
softmax       9.090   136  0.33    3760         -   246.2    11.27   1.91

M measured  I integrated  C counted  D derived  ~ modelled  - unavailable
medians; +/- of the step time is half the range over 2 rounds

modelled CPU energy of a trial, not a measurement, ranks nothing:
  gqa        ~380 J  (184 to 583 J)
  sliding    ~400 J  (194 to 615 J)
  flash      ~410 J  (196 to 629 J)
  sdpa       ~430 J  (205 to 655 J)
  linear     ~440 J  (213 to 676 J)
  softmax    ~470 J  (227 to 723 J)

Fastest training step: gqa, 110.3 ms. From a single round. 19 % less than
  softmax. One round tells no mechanisms apart.
Lowest held-out loss: gqa, 9.089 nat. From a single round. One round tells no
  mechanisms apart. After 2560 training tokens each.
Least memory in training: gqa, 184.8 MiB. Counted. 25 % less than softmax.
Fastest next token: linear, 1.454 ms. 1.448 to 1.460 ms (range over 2 rounds).
  24 % less than softmax. Not resolved against gqa: the spreads overlap.
Energy: not measured. Reason: this virtual machine has no RAPL counters; run on
  the host, or give --power-meter. A modelled value is shown apart; it does not
  rank mechanisms.
Counted work: equals the formula. Operations counted as the kernels ran equal
  the closed form to the last digit, for all 6 mechanisms.
Trials: 11 of 12 done. gqa, round 2: crashed (killed by signal 9 after step 17:
  out of memory?). Only trials that are done count.
'
list=' run  begun                 state         trials  called as
   1  2026-11-22T04:19:37Z  done           11/12  attnscope run --rounds 3
                                                  --steps 60
'
expect 0 "$table" '' report "$store" --sort time
expect 0 "$table" '' report --sort=time --run 1 --format table "$store"
expect 0 "$list" '' list "$store"

# The default store is attnscope.db here; nothing but the file is needed to read it.
cp "$store" "$folder/attnscope.db"
chmod 444 "$folder/attnscope.db"
(cd "$folder" && "$attnscope" report --sort time) | diff <(printf '%s' "$table") - || fail 'default store'
[[ $(ls "$folder") == $'attnscope.db\nerr\nout' ]] || fail "reading left files: $(ls "$folder")"

# Mistakes: one line, and what to do.
expect 2 '' "attnscope: there is no store '$folder/none.db': 'attnscope run' makes one
" report "$folder/none.db"
expect 2 '' "attnscope: store '$store' has no run 9: 'attnscope list' shows its runs
" report "$store" --run 9
expect 2 '' "attnscope: cannot sort by energy: it was not measured (this virtual machine has no \
RAPL counters; run on the host, or give --power-meter); a modelled value does not rank mechanisms
" report "$store" --sort energy
expect 1 '' "attnscope: '$source_dir/LICENSE' is not an attnscope store: name another file
" list "$source_dir/LICENSE"
expect 1 '' "attnscope: cannot write '$folder/no/page.html.part': No such file or directory
" report "$store" --out "$folder/no/page.html"
"$attnscope" report "$store" >/dev/full 2>"$folder/err" && fail 'a full disk went unnoticed'
grep -q 'No space left' "$folder/err" || fail 'a full disk: no reason given'

# Files: the format follows the name, and the page needs nothing else.
expect 0 '' '' report "$store" --out "$folder/page.html"
expect 0 '' '' report "$store" --out "$folder/run.json"
expect 0 '' '' report "$store" --sort time --out "$folder/run.txt"
diff <(printf '%s' "$table") "$folder/run.txt" || fail 'the table in a file'
"$attnscope" report "$store" --format json | cmp - "$folder/run.json" || fail 'JSON in a file'
"$attnscope" report "$store" --format html | cmp - "$folder/page.html" || fail 'the page in a file'
[[ $(head -c 15 "$folder/page.html") == '<!DOCTYPE html>' ]] || fail 'the page begins wrongly'
if command -v python3 >/dev/null; then
    python3 -c 'import json, sys; run = json.load(open(sys.argv[1])); assert run["schema"] == 1
assert len(run["trials"]) == 12 and run["run"]["trials_planned"] == 12' "$folder/run.json" ||
        fail 'the JSON file'
    "$attnscope" list --json "$store" | python3 -c 'import json, sys; r = json.load(sys.stdin)
assert len(r) == 1 and r[0]["trials"]["crashed"] == 1' || fail 'the list as JSON'
fi

# A page of 12 mechanisms in 8 rounds, of 400 steps and five minutes of three meters each.
make_store=$(dirname "$attnscope")/tests/make_store
if [[ -x $make_store ]]; then
    "$make_store" "$folder/large.db" 8 1 \
        "WITH RECURSIVE second(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM second WHERE n < 300)
         INSERT INTO sample SELECT trial.id, domain.value, n, 50 + 5 * trial.position + (n * 7919) % 13
         FROM trial, second, json_each('[\"package\",\"dram\",\"system\"]') AS domain" 400 12 &&
        "$attnscope" report "$folder/large.db" --out "$folder/large.html" || fail 'a large page'
    size=$(wc -c <"$folder/large.html")
    [[ $size -gt 400000 && $size -lt 1000000 ]] || fail "a large page has $size bytes"
fi

# In a browser: the script ran to its end, so each canvas has got its size, nothing complains, and
# a click on a heading sorts.
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
dump() { # dump PAGE: its elements after the script has run, to the file dom; complaints to log
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/profile" \
        --enable-logging=stderr --virtual-time-budget=4000 --dump-dom "file://$1" >"$folder/dom" \
        2>"$folder/log"
    ! grep -q 'CONSOLE.*\(rror\|refused\|Refused\)' "$folder/log" ||
        fail "$1: $(grep CONSOLE "$folder/log")"
    local wanted drawn
    wanted=$(grep -c '<canvas ' "$1")
    drawn=$(grep -c '<canvas [^>]*style="[^"]*height: [1-9]' "$folder/dom")
    [[ $wanted -gt 10 && $drawn == "$wanted" ]] || fail "the browser drew $drawn of $wanted charts"
}
order() { # the mechanisms of the ranking, in the order of its rows
    sed -n '/<table class="ranking">/,/<\/table>/p' "$folder/dom" |
        grep -o '<tr><th scope="row">[a-z]*' | sed 's/.*>//' | tr '\n' ' '
}
if [[ -n $browser ]]; then
    dump "$folder/page.html"
    [[ $(order) == 'gqa softmax sdpa flash sliding linear ' ]] || fail "the page's order: $(order)"
    for clicks in '1 ascending gqa sliding flash sdpa linear softmax ' \
        '2 descending softmax linear sdpa flash sliding gqa '; do
        read -r times direction wanted_order <<<"$clicks"
        click="document.querySelectorAll('.ranking th button')[2].click();"
        sed "s|</body>|<script>for (let i = 0; i < $times; i++) $click</script></body>|" \
            "$folder/page.html" >"$folder/sorted.html"
        dump "$folder/sorted.html"
        [[ $(order) == "$wanted_order " ]] || fail "$times clicks: $(order)"
        grep -q "aria-sort=\"$direction\"" "$folder/dom" || fail "$times clicks: no $direction"
    done
    if [[ -x $make_store ]]; then
        dump "$folder/large.html"
        # Two runs in one page; their mechanisms share a colour and differ in the rest.
        "$make_store" "$folder/a.db" 6 1 "" 8 && "$make_store" "$folder/b.db" 6 1.1 "" 8 &&
            "$attnscope" report "$folder/a.db" "$folder/b.db" --out "$folder/both.html" ||
            fail 'a page of two runs'
        dump "$folder/both.html"
        # Every choice of an axis draws; the pressed one is told to those who do not see it.
        for choice in seconds joules flop energy; do
            click="document.querySelector('button[data-choice=$choice]').click();"
            sed "s|</body>|<script>$click</script></body>|" "$folder/large.html" >"$folder/chosen.html"
            dump "$folder/chosen.html"
            grep -q "data-choice=\"$choice\" aria-pressed=\"true\"" "$folder/dom" || fail "no choice of $choice"
        done
        # On paper: each chart names each mechanism, and no word is cut off by an edge.
        timeout 120 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/profile" \
            --virtual-time-budget=4000 --no-pdf-header-footer --print-to-pdf="$folder/page.pdf" \
            "file://$folder/large.html" 2>/dev/null || fail 'printing'
        [[ $(head -c 5 "$folder/page.pdf") == %PDF- ]] || fail 'no page on paper'
        if command -v pdftotext >/dev/null; then
            pdftotext -bbox "$folder/page.pdf" "$folder/words"
            wanted=$(grep -c '<figure class="chart [^>]* data-kind="[bsi]' "$folder/large.html")
            drawn=$(grep -c '>softmax-2<' "$folder/words")
            [[ $wanted -gt 10 && $drawn -gt $wanted ]] || fail "$drawn labels in $wanted charts on paper"
            cut=$(awk -F '"' '/<page/ { width = $2; height = $4 }
                /<word/ && ($2 < 0 || $4 < 0 || $6 > width || $8 > height)' "$folder/words")
            [[ -z $cut ]] || fail "cut off on paper: $cut"
            # As drawn for a broad window: a narrow one would need half as many pages more.
            [[ $(grep -c '<page' "$folder/words") -le 11 ]] ||
                fail "$(grep -c '<page' "$folder/words") pages on paper"
        fi
    fi
else
    echo 'SKIP: no Chromium here, the charts were not drawn'
fi

[[ $failures == 0 ]] && echo 'all passed'
exit $((failures > 0))
