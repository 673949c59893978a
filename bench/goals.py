#!/usr/bin/env python3
"""Measures how fast attnscope is, and writes each goal of docs/SPEED.md beside what is reached.

    bench/goals.py build/fast/attnscope
    bench/goals.py build/fast/attnscope --torch ~/torch/bin/python --write docs/SPEED.md
    bench/goals.py build/fast/attnscope --only limit,decode

A goal is a ratio of times, rates or bytes within one run; its own ones are measured by bench core,
layer, step and peaks, the others by bench/peers. What is not installed is skipped with a word.
Prints Markdown; --write puts it between the two "goals" comments of a file.
"""
import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
import time

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
RECURRENCES = ("linear", "performer", "retnet", "gla", "deltanet")


class Skipped(Exception):
    """Why a goal cannot be measured here."""


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attnscope", help="the program to measure")
    parser.add_argument("--only", default="", help="groups: " + ", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=3, help="turns with each peer; attnscope alone takes 2 ROUNDS + 1 readings")
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON",
                        help="an interpreter that has PyTorch (default: this one)")
    parser.add_argument("--ggml", metavar="FOLDER",
                        help="where libggml.so lies (bench/peers/ggml.py says how to get it)")
    parser.add_argument("--llmc", metavar="FOLDER",
                        help="where llm.c's train_gpt2 and its data lie")
    parser.add_argument("--write", metavar="FILE", help="put the table there too")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else list(GROUPS)
    for name in wanted:
        if name not in GROUPS:
            parser.error(f"--only: '{name}' is none of {', '.join(GROUPS)}")
    arguments.wanted = wanted
    return arguments


class Bench:
    """Runs programs, each command once, and remembers which ran for the goal in work."""

    def __init__(self, arguments):
        self.arguments, self.known, self.commands = arguments, {}, []

    def text(self, command, folder=None, limit_s=None):
        shown = " ".join(self.shown(word) for word in command)
        if shown not in self.commands:
            self.commands.append(shown)
        if shown not in self.known:
            print(f"goals.py: {shown}", file=sys.stderr)
            try:
                done = subprocess.run(command, capture_output=True, cwd=folder, timeout=limit_s)
                self.known[shown] = done.returncode, done.stdout.decode(), done.stderr.decode()
            except subprocess.TimeoutExpired as end:
                self.known[shown] = 0, (end.stdout or b"").decode(), ""
            except OSError as error:
                self.known[shown] = 1, "", f"{error.strerror}, '{command[0]}'"
        status, output, message = self.known[shown]
        if status != 0:
            lines = (message.strip() or output.strip() or f"status {status}").splitlines()
            raise Skipped(re.sub(r"^(\S+: )+", "", lines[-1]).split("; ")[0])
        return output

    def shown(self, word):
        if word == self.arguments.attnscope:
            return "attnscope"
        return os.path.relpath(word, os.path.dirname(os.path.dirname(PEERS))) \
            if word.startswith(PEERS) else os.path.basename(word) if os.sep in word else word

    def own(self, what, *words):
        command = [self.arguments.attnscope, "bench", what, *words,
                   "--repeats", str(2 * self.arguments.rounds + 1), "--json"]
        return json.loads(self.text(command))

    def rows(self, what, *words):
        """Rows by (mechanism, direction, seq, head_dim)."""
        return {(row["mechanism"], row["direction"], row["seq"], row["head_dim"]): row
                for row in self.own(what, *words)["rows"]}

    def peer(self, script, *words, interpreter=None):
        command = [interpreter or self.arguments.torch, os.path.join(PEERS, script),
                   self.arguments.attnscope, "--rounds", str(self.arguments.rounds), *words,
                   "--json"]
        return json.loads(self.text(command))


# ---- goals: each yields (what, wanted, value) -----------------------------------------------
# wanted is ("<=" or ">=", number); a value is a function, so that one that fails stands alone.

STEP = ("--model", "gpt2", "--batch", "2", "--seq", "512", "--mechanism", "flash")
NAMES = {"f32": "float32", "bf16": "bfloat16"}


def onednn_step_s(bench):
    """The bfloat16 products of a step of GPT-2 124M by oneDNN, weights packed, in seconds."""
    folder = os.path.dirname(os.path.abspath(bench.arguments.attnscope))
    program = os.path.join(folder, "bench", "bench_bf16")
    if not os.path.exists(program):
        raise Skipped(f"bench_bf16 is not built: cmake --build {os.path.relpath(folder)} --target "
                      "bench_bf16")
    output = bench.text([program, "1024", str(bench.arguments.rounds)])
    total = 0.0
    line = re.compile(r"\s*(\d+) -> +(\d+) +(forward|dx|dw) +[\d.]+(?: +\d+ %)? +([\d.]+) +[\d.]+$")
    for found in filter(None, map(line.match, output.splitlines())):
        times = 1 if int(found[2]) > 50000 else 12
        total += times * 2e-12 * 1024 * int(found[1]) * int(found[2]) / float(found[4])
    if total == 0.0:
        raise Skipped("bench_bf16 was built without oneDNN")
    return total


def step_goals(bench):
    def step(dtype):
        return bench.own("step", *STEP, "--dtype", dtype)
    yield ("bfloat16 step over its dense products through oneDNN", ("<=", 1.5),
           lambda: step("bf16")["step"]["median_s"] / onednn_step_s(bench))
    yield ("float32 step over its dense products through oneDNN", ("<=", 1.25),
           lambda: step("f32")["step_over_dense"])
    yield ("bfloat16 step: memory, GiB", ("<=", 2.6),
           lambda: step("bf16")["memory_peak_bytes"] / 2.0 ** 30)


def torch_step_goals(bench):
    def ahead(dtype, *mallocs):
        # In bfloat16 pages are no question: only PyTorch's best is asked for.
        words = ("--malloc", "huge") if dtype == "bf16" else ()
        rows = bench.peer("step.py", "--dtype", dtype, *words)["rows"]
        ours = next(row["step_s"] for row in rows if row["program"] == "attnscope")
        return min(row["step_s"] for row in rows if row["malloc"] in mallocs) / ours
    yield ("bfloat16 step: PyTorch's best over ours", (">=", 2.0), lambda: ahead("bf16", "huge"))
    yield ("float32 step: PyTorch's best over ours", (">=", 1.15),
           lambda: ahead("f32", "huge", "plain"))
    yield ("float32 step: PyTorch as installed over ours", (">=", 1.4),
           lambda: ahead("f32", "plain"))


def llmc_goals(bench):
    def ahead():
        folder = bench.arguments.llmc
        if not folder:
            raise Skipped("llm.c is not here: --llmc FOLDER")
        program = os.path.join(os.path.abspath(folder), "train_gpt2")
        if not os.path.exists(program):
            raise Skipped(f"no train_gpt2 in {folder}: make train_gpt2 there")
        # It takes minutes; its lines come one by one, and what came in time is enough.
        output = bench.text(["stdbuf", "-oL", program], folder, 90)
        times = sorted(float(ms) for ms in re.findall(r"\(took ([\d.]+) ms\)", output)[1:])
        if not times:
            raise Skipped("train_gpt2 made no two steps in 90 s")
        own = bench.own("step", "--model", "gpt2", "--batch", "4", "--seq", "64")
        return 1e-3 * times[len(times) // 2] / own["step"]["median_s"]
    yield ("float32 step of 4 x 64 tokens: llm.c over ours", (">=", 1.0), ahead)


def ggml_goals(bench):
    def ahead(dtype, seq):
        if not bench.arguments.ggml:
            raise Skipped("ggml is not here: --ggml FOLDER")
        rows = bench.peer("ggml.py", "--ggml", os.path.abspath(bench.arguments.ggml), "--seq",
                          "1024,2048,4096,8192", interpreter=sys.executable)["rows"]
        times = {row["program"]: row["forward_s"] for row in rows if row["seq"] == seq}
        theirs = min(time for program, time in times.items() if program.startswith("ggml"))
        return theirs / times["attnscope " + dtype]
    for dtype, goal in (("f32", 2.0), ("bf16", 8.0)):
        for seq in (1024, 2048, 4096, 8192):
            yield (f"{NAMES[dtype]} attention forward, T = {seq}: ggml's best over ours",
                   (">=", goal), lambda dtype=dtype, seq=seq: ahead(dtype, seq))


def limit_goals(bench):
    for dtype, head_dim in (("bf16", 64), ("bf16", 128), ("f32", 64), ("f32", 128)):
        for direction in ("forward", "backward"):
            def value(dtype=dtype, direction=direction, head_dim=head_dim):
                rows = bench.rows("core", "--seq", "4096", "--head-dim", "64,128", "--dtype", dtype)
                row = rows["flash", direction, 4096, head_dim]
                if dtype == "bf16":
                    return row["time_over_limit"]["median"]
                return 100.0 * row["share_of_peak"]["median"]
            name = f"{NAMES[dtype]} flash {direction}, T = 4096, heads of {head_dim}: "
            if dtype == "bf16":
                yield (name + "time over products and exponentials at their peaks",
                       ("<=", 1.6 if direction == "forward" else 1.8), value)
            else:
                yield (name + "% of the FMA peak",
                       (">=", 75.0 if direction == "forward" else 70.0), value)


def torch_attention_goals(bench):
    def ahead(dtype, seq, part):
        rows = bench.peer("attention.py", "--dtype", dtype, "--seq", "512,1024,2048,4096,8192")
        times = {(row["program"], row["seq"]): row[part] for row in rows["rows"]}
        return min(time for (program, length), time in times.items()
                   if length == seq and program != "attnscope") / times["attnscope", seq]
    for dtype, goals in (("bf16", ((512, 1.5, 1.5), (2048, 2.5, 5.0), (4096, 2.5, 5.0),
                                   (8192, 2.5, 5.0))),
                         ("f32", ((1024, 1.5, 1.5), (2048, 1.5, 1.5), (4096, 1.5, 1.5),
                                  (8192, 1.5, 1.5)))):
        for seq, forward, both in goals:
            for part, name, goal in (("forward_s", "forward", forward),
                                     ("both_s", "forward and backward", both)):
                yield (f"{NAMES[dtype]} attention {name}, T = {seq}: PyTorch's best over ours",
                       (">=", goal),
                       lambda dtype=dtype, seq=seq, part=part: ahead(dtype, seq, part))


def recurrence_goals(bench):
    def share(name, direction):
        rates = {peak["name"]: peak["rate"]["median"] for peak in bench.own("peaks")["peaks"]}
        rows = bench.rows("core", "--mechanisms", ",".join(RECURRENCES), "--seq", "4096")
        row = rows[name, direction, 4096, 64]
        # The product of one chunk, 64 x 64 x 64 in the first cache, is what these are made of.
        return 100.0 * row["share_of_peak"]["median"] * rates["fma_f32"] / rates["product_f32"]
    for name in RECURRENCES:
        for direction in ("forward", "backward"):
            yield (f"{name} {direction}, T = 4096: % of the rate of products of its chunks",
                   (">=", 50.0), lambda n=name, d=direction: share(n, d))


def linear_goals(bench):
    def rows(name):
        return bench.rows("core", "--mechanisms", name, "--seq", "4096-65536*16", "--batch", "1")

    def growth(name, part):
        found = rows(name)
        total = [sum(part(found[name, direction, seq, 64]) for direction in ("forward", "backward"))
                 for seq in (4096, 65536)]
        return math.log(total[1] / total[0]) / math.log(16.0)
    for name in RECURRENCES:
        yield (f"{name}, T = 4096 to 65536: exponent of the time", ("<=", 1.05),
               lambda n=name: growth(n, lambda row: row["time"]["median_s"]))
        yield (f"{name}, T = 4096 to 65536: exponent of the memory", ("<=", 1.0),
               lambda n=name: growth(n, lambda row: row["memory_bytes"]))


def decode_goals(bench):
    def share(dtype, mechanism):
        rows = bench.rows("layer", "--mechanisms", "flash,gqa", "--seq", "16384", "--direction",
                          "decode", "--dtype", dtype)
        return 100.0 * rows[mechanism, "decode", 16384, 64]["share_of_peak"]["median"]
    for dtype in ("f32", "bf16"):
        for mechanism in ("flash", "gqa"):
            yield (f"{NAMES[dtype]} {mechanism} layer decoding behind 16384 tokens: % of the "
                   "memory's rate", (">=", 80.0), lambda d=dtype, m=mechanism: share(d, m))


def memory_goals(bench):
    def squares():
        rows = bench.rows("core", "--seq", "16384", "--batch", "1")
        return rows["flash", "forward", 16384, 64]["memory_bytes"] / (12 * 4.0 * 16384 ** 2)
    yield ("flash at T = 16384: all memory over that of the scores", ("<=", 0.1), squares)


GROUPS = {"step": step_goals, "torch-step": torch_step_goals, "llmc": llmc_goals,
          "limit": limit_goals, "torch-attention": torch_attention_goals, "ggml": ggml_goals,
          "recurrence": recurrence_goals, "linear": linear_goals, "decode": decode_goals,
          "memory": memory_goals}


# ---- the table ------------------------------------------------------------------------------

def table_row(bench, goal, footnotes):
    what, (relation, wanted), value = goal
    bench.commands = []
    try:
        reached = value()
        passes = reached <= wanted if relation == "<=" else reached >= wanted
        text, verdict = f"{reached:.3g}", "reached" if passes else "**missed**"
    except Skipped as reason:
        text, verdict = "", f"skipped: {reason}"
    numbers = []
    for command in bench.commands:
        if command not in footnotes:
            footnotes.append(command)
        numbers.append(str(footnotes.index(command) + 1))
    sign = {"<=": "≤", ">=": "≥"}[relation]
    return f"| {what} | {sign} {wanted:g} | {text} | {verdict} | {' '.join(numbers)} |"


def machine():
    model = platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines
                          if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"


def make_table(arguments):
    bench, footnotes = Bench(arguments), []
    lines, took = ["| goal | wanted | value | | by |", "|---|---|---|---|---|"], []
    for name in arguments.wanted:
        start = time.monotonic()
        lines += [table_row(bench, goal, footnotes) for goal in GROUPS[name](bench)]
        took.append(f"{name} {(time.monotonic() - start) / 60:.1f}")
    version = bench.text([arguments.attnscope, "--version"]).splitlines()[0]
    lines += ["", f"{version}; {machine()}; load {os.getloadavg()[0]:.1f} at the end. "
              f"Minutes: {', '.join(took)}.", ""]
    lines += [f"{number}. `{command}`" for number, command in enumerate(footnotes, 1)]
    return "\n".join(lines) + "\n"


def write(path, name, table):
    """Puts a table between the comments of its name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if text.count(begin) != 1 or text.count(end) != 1:
        program = os.path.basename(sys.argv[0])
        sys.exit(f"{program}: {path} lacks one line '{begin}' and one '{end}'")
    before, rest = text.split(begin)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + begin + "\n" + table + end + rest.split(end)[1])


def main():
    arguments = read_arguments()
    table = make_table(arguments)
    print(table, end="")
    if arguments.write:
        write(arguments.write, "goals", table)


if __name__ == "__main__":
    main()
