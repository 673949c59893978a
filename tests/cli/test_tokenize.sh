#!/usr/bin/env bash
# attnscope tokenize, as a person types it: ids, the way back, lines of JSON, and what is refused.
# Usage: test_tokenize.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1 source_dir=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

# expect NAME STATUS STDOUT STDERR ARGUMENT...: reads the file `in`; all of the output must match
expect() {
    local name=$1 status=$2 out=$3 err=$4
    shift 4
    "$attnscope" tokenize "$@" <in >out 2>err
    local got=$?
    [[ $got == "$status" ]] || { echo "FAIL $name: status $got, not $status"; failures=$((failures + 1)); }
    printf '%b' "$out" | cmp -s - out || { echo "FAIL $name: $(<out)"; failures=$((failures + 1)); }
    printf '%b' "$err" | cmp -s - err || { echo "FAIL $name: $(<err)"; failures=$((failures + 1)); }
}

printf 'Hello, world' >in
expect words 0 '15496 11 995\n' ''
expect 'standard input by name' 0 '15496 11 995\n' '' -
printf '' >empty
expect 'an empty file' 0 '\n' '' empty
printf '<|endoftext|> <|user|>' >in
expect 'special tokens are text' 0 '27 91 437 1659 5239 91 29 1279 91 7220 91 29\n' ''
printf 'a\0b' >in
expect 'NUL' 0 '64 188 65\n' ''
gzip -c in >in.gz
expect 'gzip' 0 '64 188 65\n' '' in.gz
printf 'caf\xe9' >latin1.txt
expect 'not UTF-8' 1 '' 'attnscope: latin1.txt: not UTF-8: byte E9 at offset 3\n' latin1.txt
expect 'no file' 2 '' 'attnscope: cannot read absent: No such file or directory\n' absent
expect 'a folder' 2 '' 'attnscope: / is a directory; name a file in it\n' /

printf ' 15496\n11\t995 ' >in
expect 'back' 0 'Hello, world' '' --decode
printf '50256' >in
expect 'the end token' 0 '<|endoftext|>' '' --decode
printf '15496 50257 1' >in
expect 'no such id' 1 'Hello' \
    'attnscope: standard input: the number before offset 11 is no token id: they go from 0 to 50256\n' --decode
printf '99999999999999999999999' >in
expect 'a huge id' 1 '' \
    'attnscope: standard input: the number before offset 23 is no token id: they go from 0 to 50256\n' --decode
printf '1, 2' >in
expect 'no id' 1 '' \
    'attnscope: standard input: byte 2C at offset 1; token ids are wanted, with white space between them\n' --decode

printf '{"t": "Hello"}\r\n\n{"t": "a\\u0000b", "t2": 1}\n{"t": ""}' >in
expect 'lines' 0 '[15496]\n[64, 188, 65]\n[]\n' '' --jsonl t
printf '[15496]\n[64, 188, 65]\n[]\n' >in
expect 'lines back' 0 '{"t": "Hello"}\n{"t": "a\\u0000b"}\n{"t": ""}\n' '' --decode --jsonl t
printf '{"t": "a"}\n{"u": 1}\n' >in
expect 'no field' 1 '[64]\n' 'attnscope: standard input:2: no string in a field "t"\n' --jsonl t
printf '{"t": "a"\n' >in
expect 'bad JSON' 1 '' 'attnscope: standard input:1: json_syntax\n' --jsonl t
printf '[1, 50257]' >in
expect 'no such id in a line' 1 '' \
    'attnscope: standard input:1: not a token id: they go from 0 to 50256\n' --jsonl t --decode
printf '[1, "2"]' >in
expect 'a string in a line' 1 '' \
    'attnscope: standard input:1: not a token id: they go from 0 to 50256\n' --jsonl t --decode
printf '[160]' >in
expect 'half a character' 1 '' \
    'attnscope: standard input:1: these tokens do not make up whole characters\n' --jsonl t --decode
printf '{}' >in
expect 'no array' 1 '' 'attnscope: standard input:1: no array of token ids\n' --jsonl t --decode

ATTNSCOPE_DATA=/nowhere "$attnscope" tokenize <empty >out 2>err
[[ $? == 2 && ! -s out ]] || { echo 'FAIL without a vocabulary'; failures=$((failures + 1)); }
grep -q 'no readable gpt2/vocab.bpe in /nowhere' err || { echo "FAIL $(<err)"; failures=$((failures + 1)); }

# Several pieces of a mebibyte, and the way back to the last byte.
for _ in {1..5}; do cat "$source_dir/data/sample-permissive.jsonl"; done >large
"$attnscope" tokenize large >ids && "$attnscope" tokenize --decode ids | cmp - large || failures=$((failures + 1))
[[ $(wc -l <ids) == 1 ]] || { echo 'FAIL: more than one line'; failures=$((failures + 1)); }

exit $((failures > 0))
