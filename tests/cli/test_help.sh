#!/usr/bin/env bash
# The command line itself: help, version, mistakes, manual, completion, broken outputs.
# Usage: test_help.sh ATTNSCOPE SOURCE_DIR
set -uo pipefail
attnscope=$1 source_dir=$2
folder=$(mktemp -d)
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

# shellcheck disable=SC2016
help_text='Usage: attnscope help [options] [COMMAND]

Prints the help of a command, or the list of commands.

To complete command lines in this shell:

  eval "$(attnscope help --completion bash)"

Options:
  --man               Print the manual page in roff, for man -l.
  --completion SHELL  Print the script that completes command lines. (bash)
  -h, --help          Show this help.
'
expect 0 "$help_text" '' help help
expect 0 "$help_text" '' help --help
expect 0 "$help_text" '' help -h

overview=$("$attnscope" --help) || fail 'attnscope --help'
[[ $overview == "Usage: attnscope COMMAND [options] [operands]"* ]] || fail 'overview: first line'
expect 0 "$overview"$'\n' '' help
expect 0 "$overview"$'\n' '' -h
expect 2 '' "$overview"$'\n'
awk 'length > 80 { bad = 1; print } END { exit bad }' <<<"$overview" || fail 'overview: width'

expect 2 '' $'attnscope: unknown command \'hlep\'; did you mean \'help\'?\nsee attnscope --help\n' hlep
expect 2 '' $'attnscope: unknown command \'xyzzy\'\nsee attnscope --help\n' xyzzy
expect 2 '' $'attnscope: unknown option \'--verison\'; did you mean \'--version\'?\nsee attnscope --help\n' --verison
expect 2 '' $'attnscope help: unknown option \'--completions\'; did you mean \'--completion\'?\nsee attnscope help --help\n' help --completions
expect 2 '' $'attnscope help: --completion must be bash, not \'bsh\'; did you mean \'bash\'?\nsee attnscope help --help\n' help --completion bsh
expect 2 '' $'attnscope help: --completion needs a value: --completion SHELL\nsee attnscope help --help\n' help --completion
expect 2 '' $'attnscope help: too many operands from \'b\' on: takes [COMMAND]\nsee attnscope help --help\n' help a b
expect 2 '' $'attnscope: unknown command \'hlep\'; did you mean \'help\'?\n' help hlep

version=$(<"$source_dir/VERSION")
pattern="^attnscope ${version//./\\.} \\(([0-9a-z.-]+)\\)\$"
[[ $("$attnscope" --version) =~ $pattern ]] || fail "--version: $("$attnscope" --version)"

# Every command explains itself, within 80 columns, both ways.
while read -r command; do
    by_option=$("$attnscope" "$command" --help) || fail "$command --help"
    [[ $by_option == "Usage: attnscope $command"* ]] || fail "$command --help: first line"
    [[ $("$attnscope" help "$command") == "$by_option" ]] || fail "help $command differs"
    awk 'length > 80 { bad = 1; print } END { exit bad }' <<<"$by_option" || fail "$command: width"
done < <(sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' <<<"$overview")

# Outputs that break.
got=0
"$attnscope" help >/dev/full 2>"$folder/err" || got=$?
[[ $got == 1 ]] || fail "/dev/full: status $got"
[[ $(<"$folder/err") == 'attnscope: cannot write to stdout: No space left on device' ]] ||
    fail "/dev/full: $(<"$folder/err")"
got=0
"$attnscope" help >&- 2>"$folder/err" || got=$?
[[ $got == 1 ]] || fail "closed stdout: status $got"
[[ $(<"$folder/err") == 'attnscope: cannot write to stdout: Bad file descriptor' ]] ||
    fail "closed stdout: $(<"$folder/err")"
# A reader that leaves before the first write ends the program silently; where SIGPIPE is ignored
# the write fails instead.
{
    sleep 0.2
    "$attnscope" help --man 2>"$folder/err"
    echo $? >"$folder/status"
} | true
status=$(<"$folder/status")
[[ $status == 141 || $status == 1 ]] || fail "closed pipe: status $status"
[[ $status == 1 || ! -s $folder/err ]] || fail "closed pipe: $(<"$folder/err")"

# The manual page renders without a complaint.
"$attnscope" help --man >"$folder/attnscope.1" || fail 'help --man'
if command -v groff >/dev/null; then
    GROFF_NO_SGR=1 groff -man -Tascii -P-cbou -ww "$folder/attnscope.1" >"$folder/page" 2>"$folder/err" || fail 'groff'
    [[ ! -s $folder/err ]] || fail "groff: $(<"$folder/err")"
    grep -q 'EXIT' "$folder/page" || fail 'groff: no EXIT STATUS section'
else
    echo 'groff is absent: the manual page was not rendered'
fi

# complete WORD...: what bash would offer for the last word
complete() {
    # shellcheck disable=SC2034,SC2016
    bash -c 'eval "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _attnscope
             printf "%s\n" "${COMPREPLY[*]-}"' - "$("$attnscope" help --completion bash)" "$@"
}
[[ $(complete attnscope hel) == help ]] || fail "completion: hel"
[[ $(complete attnscope help --c) == --completion ]] || fail 'completion: --c'
[[ $(complete attnscope help --completion '') == bash ]] || fail 'completion: a value'
[[ $(complete attnscope help --completion = b) == bash ]] || fail 'completion: --name=value'
[[ $(complete attnscope help --completion =) == bash ]] || fail 'completion: --name='
[[ $(complete attnscope run --mechanisms fla) == flash ]] || fail 'completion: a name'
[[ $(complete attnscope run --mechanisms flash,slid) == flash,sliding ]] || fail 'completion: a list'

[[ $failures == 0 ]] && echo ok
exit $((failures > 0))
