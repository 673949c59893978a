#!/usr/bin/env bash
# attnscope data, as a person types it. Usage: test_data.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1 source_dir=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

# same NAME EXPECTED ACTUAL: two files
same() {
    diff "$2" "$3" >difference && return
    printf 'FAIL %s:\n%s\n' "$1" "$(<difference)"
    failures=$((failures + 1))
}
# refused NAME STATUS TEXT ARGUMENT...: exactly this line on stderr, nothing on stdout
refused() {
    local name=$1 status=$2
    echo "attnscope: $3" >expected
    shift 3
    "$attnscope" data "$@" >out 2>err
    [[ $? == "$status" && ! -s out ]] || { echo "FAIL $name: status or output"; failures=$((failures + 1)); }
    same "$name" expected err
}

cp "$source_dir/data/sample-permissive.jsonl" sample.jsonl
cat >expected <<'END'
sample.jsonl
SHA-256 98d1292da6fceeb88562c30ff57d09ee8d424fef2a8939ccbc26f25fbde66030

rows               612   of 612 lines, 0 skipped
tokens         191,839
targets        145,056   75.6 % of the tokens count in the loss

tokens a row: mean 313.5, median 136, p90 754, p99 2,074, longest 2,984

TOKENS            ROWS
up to       64      38    6.2 %  ##
up to      128     248   40.5 %  ################
up to      256     133   21.7 %  #########
up to      512      87   14.2 %  ######
up to    1,024      67   10.9 %  ####
up to    2,048      32    5.2 %  ##
up to    4,096       7    1.1 %
more                 0    0.0 %

longer than 512 tokens: 106 rows (17.3 %), with 55,469 tokens (28.9 %) beyond

SOURCE                                   ROWS       TOKENS      TARGETS     MEAN
oasst1                                    257      148,062      126,209    576.1
cot                                        95        9,230        3,548     97.2
gsm8k                                      80       11,617        5,882    145.2
self_instruct_user                         73       10,810        4,949    148.1
taskmaster4                                60        6,265        2,139    104.4
self_instruct_seed                         47        5,855        2,329    124.6
END
"$attnscope" data sample.jsonl --seq 512 >out 2>err || failures=$((failures + 1))
same sample expected out
same 'nothing on stderr' /dev/null err
"$attnscope" data | sed '1s/.*/sample.jsonl/' >out
sed '/^longer/,+1d' expected >without
same 'the shipped sample' without out

cat >rows.jsonl <<'END'
{"id": "a", "dataset": "d\u001b[1m", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo\u0007"}]}

{"id": "b", "messages": []}
{"text": "plain"}
no JSON
END
gzip -c rows.jsonl >rows.jsonl.gz
cat >expected <<'END'
id       a
dataset  d\x1B[1m
tokens   18, of them targets 3

<|user|>
Hi
<|assistant|>
Yo\x07<|endoftext|>

ids
27 91 7220 91 29 198 17250 198 27 91 562 10167 91 29 198 38101 195 50256

mask
000000000000000111
END
"$attnscope" data --render a rows.jsonl >out 2>err || failures=$((failures + 1))
same 'a row' expected out
cat >expected <<'END'
{
 "id": "line-4",
 "dataset": "",
 "target_tokens": 2,
 "text": "plain<|endoftext|>",
 "ids": [
  25638,
  50256
 ],
 "mask": [
  1,
  1
 ]
}
END
"$attnscope" data --render line-4 --json rows.jsonl.gz >out || failures=$((failures + 1))
same 'a row as JSON' expected out
cat >expected <<'END'
rows.jsonl
SHA-256 HASH

rows                 2   of 5 lines, 2 skipped, 1 blank
tokens              20
targets              5   25.0 % of the tokens count in the loss

tokens a row: mean 10.0, median 2, p90 18, p99 18, longest 18

TOKENS            ROWS
up to       64       2  100.0 %  ########################################
up to      128       0    0.0 %
up to      256       0    0.0 %
up to      512       0    0.0 %
up to    1,024       0    0.0 %
up to    2,048       0    0.0 %
up to    4,096       0    0.0 %
more                 0    0.0 %

SOURCE                                   ROWS       TOKENS      TARGETS     MEAN
d\x1B[1m                                    1           18            3     18.0
(none named)                                1            2            2      2.0

SKIPPED              LINES
json_syntax              1
no_messages              1

the first of them
rows.jsonl:3: no_messages
rows.jsonl:5: json_syntax
END
sed -i "s/HASH/$(sha256sum rows.jsonl | cut -d' ' -f1)/" expected
"$attnscope" data rows.jsonl >out || failures=$((failures + 1))
same 'skipped lines' expected out
"$attnscope" data --json --seq 10 rows.jsonl >out || failures=$((failures + 1))
cat >expected <<'END'
{"schema":1,"file":"rows.jsonl","sha256":"HASH","lines":5,"rows":2,"tokens":20,"target_tokens":5,"row_tokens":{"mean":10.0,"median":2,"p90":18,"p99":18,"max":18,"histogram":[{"up_to":64,"rows":2},{"up_to":128,"rows":0},{"up_to":256,"rows":0},{"up_to":512,"rows":0},{"up_to":1024,"rows":0},{"up_to":2048,"rows":0},{"up_to":4096,"rows":0},{"up_to":null,"rows":0}]},"seq":{"tokens":10,"rows_longer":1,"tokens_beyond":8},"sources":[{"dataset":"d\u001b[1m","rows":1,"tokens":18,"target_tokens":3},{"dataset":"","rows":1,"tokens":2,"target_tokens":2}],"skipped":{"lines":{"blank":1,"json_syntax":1,"no_messages":1},"first":[{"line":3,"reason":"no_messages"},{"line":5,"reason":"json_syntax"}]}}
END
sed -i "s/HASH/$(sha256sum rows.jsonl | cut -d' ' -f1)/" expected
sed -e 's/^ *//' -e 's/": /":/g' -e 's/\\u001B/\\u001b/' out | tr -d '\n' | sed 's/$/\n/' >flat
same 'JSON' expected flat

awk 'BEGIN { for (i = 0; i < 3000; i++) print i % 30 ? "A line of some thirty bytes, or so." : "" }' >book.txt
"$attnscope" data book.txt | sed -n 4,5p >out
printf 'rows                 2   of 2 sections, 0 skipped\ntokens          32,000\n' >expected
same 'plain text' expected out

refused 'no file' 2 'cannot read absent: No such file or directory' absent
refused 'a folder' 2 '/ is a directory; name a file in it' /
refused 'no such row' 2 "rows.jsonl has no row with the id 'x'" --render x rows.jsonl
: >empty.jsonl
refused 'empty' 1 'empty.jsonl holds no rows' empty.jsonl
echo words >words.jsonl
refused 'no JSON' 1 'words.jsonl: none of 1 lines is a row; line 1: json_syntax. JSON Lines with "messages" or "text" is wanted, or plain text in a file named .txt' words.jsonl
printf 'a\xff' >bad.txt
refused 'not UTF-8' 1 'bad.txt: not UTF-8: byte FF at offset 1; convert it, for instance with iconv' bad.txt
head -c 60 rows.jsonl.gz >cut.jsonl.gz
refused 'a cut file' 1 'cut.jsonl.gz: the gzip data is damaged or cut short (unexpected end of file); fetch it again' cut.jsonl.gz

exit $((failures > 0))
