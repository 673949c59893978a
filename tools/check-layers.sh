#!/bin/sh
# Fails when a file in src/X includes "Y/..." and tools/layers.txt does not list Y under X,
# or includes a header without naming its layer. "attn/..." is the public API: always allowed.
cd "$(dirname "$0")/.." || exit 1
find src -name '*.[ch]' | sort | xargs awk '
FNR == NR { split($0, part, ":"); n = split(part[2], below, " ")
            allowed[part[1], part[1]] = 1
            for (i = 1; i <= n; i++) allowed[part[1], below[i]] = 1
            next }
match($0, /^[ \t]*#[ \t]*include[ \t]*"/) {
    name = substr($0, RLENGTH + 1); sub(/".*/, "", name)
    split(FILENAME, path, "/"); from = path[2]
    if (split(name, to, "/") < 2) {
        printf "%s:%d: include \"%s\" does not name its layer\n", FILENAME, FNR, name; bad = 1
    } else if (to[1] != "attn" && !allowed[from, to[1]]) {
        printf "%s:%d: %s may not include %s\n", FILENAME, FNR, from, to[1]; bad = 1
    } }
END { exit bad }' tools/layers.txt
