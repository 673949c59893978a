#!/usr/bin/env bash
# Counts a JUnit file of ctest: prints "PASSED FAILED SKIPPED". A test that ends with its own
# line "N passed, N failed, N skipped" counts as those, any other as one.
# Usage: count-tests.sh FILE
set -euo pipefail
awk '
    function end_test() {
        if (!in_test) return
        if (rows) { passed += p; failed += f; skipped += s; if (state == "fail" && f == 0) failed++ }
        else if (state == "run") passed++
        else if (state == "fail") failed++
        else skipped++
        in_test = 0
    }
    /<testcase / {
        end_test()
        in_test = 1; rows = 0; state = "notrun"
        if (match($0, /status="[a-z]+"/)) state = substr($0, RSTART + 8, RLENGTH - 9)
    }
    {
        line = $0
        sub(/^.*<system-out>/, "", line)
        if (line ~ /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped(<\/system-out>)?$/) {
            split(line, word, " ")
            rows = 1; p = word[1]; f = word[3]; s = word[5]
        }
    }
    /<\/testsuite>/ { end_test() }
    END { end_test(); print passed + 0, failed + 0, skipped + 0 }' "$1"
