#!/bin/sh
# attnscope mechanisms: every registered name, at most 80 columns, JSON, mistyped names.
attnscope=$1
source=$2
failures=0

check() { # check NAME EXPECTED ACTUAL
    if [ "$2" != "$3" ]; then
        failures=$((failures + 1))
        printf 'FAILED: %s\n--- expected\n%s\n--- actual\n%s\n' "$1" "$2" "$3"
    fi
}

registered=$(sed -n 's/^ATTN_MECHANISM(.*"\(.*\)")$/\1/p' "$source/src/mechanisms/mechanisms.def")
check 'all names' "$registered" "$("$attnscope" mechanisms | grep -v '^ ' | grep .)"
check 'width' '' "$("$attnscope" mechanisms | awk 'length > 80')"
check 'one' 'flash' "$("$attnscope" mechanisms flash | grep -v '^ ')"
check 'parameters' '    2362368 parameters a layer of width 768 with 12 heads' \
    "$("$attnscope" mechanisms flash | grep parameters)"
check 'both forms' 'causal' "$("$attnscope" mechanisms flash --json |
    sed -n 's/^        "name": "\(.*\)",$/\1/p')"
check 'one form' '' "$("$attnscope" mechanisms gla | grep causal=)"
check 'json names' "$registered" \
    "$("$attnscope" mechanisms --json | sed -n 's/^    "name": "\(.*\)",$/\1/p')"
message=$("$attnscope" mechanisms flsh 2>&1)
check 'unknown: status' 2 $?
check 'unknown: text' "attnscope: unknown mechanism 'flsh'; did you mean 'flash'?" "$message"

[ "$failures" -eq 0 ]
