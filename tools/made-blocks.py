#!/usr/bin/env python3
"""Checks, or with --write renews, the parts of documents that commands make.

Usage: made-blocks.py ATTNSCOPE [--write] FILE...
A part begins with the line `<!-- made by: COMMAND -->` and ends with `<!-- end -->`. Commands start
with attnscope or tools/; they run in the folder of the source.
"""
import difflib
import os
import shlex
import subprocess
import sys

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def output(attnscope, command):
    words = shlex.split(command)
    if words[0] == "attnscope":
        words[0] = attnscope
    words = [attnscope if w == "ATTNSCOPE" else w for w in words]
    environment = dict(os.environ, XDG_CONFIG_HOME="/nonexistent")
    made = subprocess.run(words, cwd=SOURCE, env=environment, stdout=subprocess.PIPE, check=True)
    return made.stdout.decode().rstrip("\n").split("\n")


def renew(attnscope, lines):
    """The lines with every made part as its command makes it now."""
    new, at, parts = [], 0, 0
    while at < len(lines):
        new.append(lines[at])
        if lines[at].startswith("<!-- made by: "):
            made = output(attnscope, lines[at][len("<!-- made by: "):-len(" -->")])
            is_markdown = made[0].startswith("|")
            new += [""] + made + [""] if is_markdown else ["", "```"] + made + ["```", ""]
            at = lines.index("<!-- end -->", at)
            new.append(lines[at])
            parts += 1
        at += 1
    return new, parts


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    if len(arguments) < 2:
        sys.exit("usage: made-blocks.py ATTNSCOPE [--write] FILE...")
    attnscope, failed = os.path.abspath(arguments[0]), False
    for file in arguments[1:]:
        with open(file, encoding="utf-8") as f:
            old = f.read().split("\n")
        new, parts = renew(attnscope, old)
        if "--write" in sys.argv:
            with open(file, "w", encoding="utf-8") as f:
                f.write("\n".join(new))
        elif new != old:
            print(*difflib.unified_diff(old, new, file, "made now", lineterm=""), sep="\n")
            failed = True
        print(f"{file}: {parts} parts")
        failed |= parts == 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
