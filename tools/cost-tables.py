#!/usr/bin/env python3
"""The tables of docs/costs.md in which a widely copied document stands beside exact counts.

Usage: cost-tables.py ATTNSCOPE TABLE
What the document says is written here; every other number comes from `attnscope cost --json`.
"""
import json
import os
import subprocess
import sys

MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "costs", "models.json")


def rows(attnscope, *arguments):
    command = [attnscope, "cost", "--models", MODELS, "--json", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["rows"]


def part(row, name):
    return next(p for p in row["parts"] if p["name"] == name)


def table(heads, lines):
    print("| " + " | ".join(heads) + " |")
    print("|" + "---:|" * len(heads))
    for line in lines:
        print("| " + " | ".join(line) + " |")


def giga(flop):
    return f"{flop / 1e9:.4g}"


def scaling(attnscope):
    """A layer of width 4096 with 64 heads of 64: softmax attention and linear attention."""
    said = {512: (0.55, 0.52), 1024: (2.15, 1.05), 2048: (8.59, 2.10), 4096: (34.36, 4.19),
            8192: (137.44, 8.39), 16384: (549.76, 16.78)}
    arguments = ["--seq", "512-16384*2", "--phase", "prefill"]
    full = rows(attnscope, "--model", "layer-4096", *arguments)
    causal = rows(attnscope, "--model", "causal-layer-4096", *arguments)
    linear = rows(attnscope, "--model", "layer-4096", "--mechanisms", "linear", *arguments)
    lines = []
    for f, c, l in zip(full, causal, linear):
        n = f["keys"]
        core = part(f, "core")["forward"]["matmul_flop"]
        # a mechanism without pairs is counted with its projections: 4 of 2 n d^2
        state = part(l, "core")["forward"]["matmul_flop"]
        lines.append([str(n), str(said[n][0]), giga(core), giga(part(c, "core")["useful_forward_flop"]),
                      str(said[n][1]), giga(state), f"{core / state:.1f}"])
    table(["tokens", "said, softmax", "full", "causal, useful", "said, linear", "linear", "ratio"], lines)


def decoding(attnscope):
    """One token of a 7B model: FLOP of the products, and the bytes of its cache."""
    said = {512: "0.46", 2048: "7.34"}
    lines = []
    for row in rows(attnscope, "--model", "llama2-7b", "--phase", "decode", "--seq", "512,2048", "--dtype", "fp16"):
        core = part(row, "core")
        lines.append([str(row["keys"]), said[row["keys"]], giga(row["forward"]["matmul_flop"]),
                      giga(core["times"] * core["forward"]["matmul_flop"]), "262144",
                      str(row["cache_bytes"] // row["keys"])])
    table(["tokens", "said, GFLOP", "GFLOP", "of it attention", "said, cache bytes a token", "cache bytes a token"],
          lines)


def vision(attnscope):
    """Image towers and the Q-Former, forward, one image, GFLOP."""
    models = [("vit-b16", [], "-"), ("vit-l14", [], "3.8 (cores alone)"), ("clip-vit-l14-336", [], "-"),
              ("blip2-qformer", [], "0.06")]
    lines = []
    for name, more, said in models:
        row = rows(attnscope, "--model", name, "--phase", "prefill", *more)[0]
        cores = sum(p["times"] * p["forward"]["matmul_flop"] for p in row["parts"]
                    if p["class"] == "attention core")
        lines.append([name, said, giga(row["forward"]["matmul_flop"]), giga(cores)])
    table(["model", "said", "all", "of it attention cores"], lines)


TABLES = {f.__name__: f for f in (scaling, decoding, vision)}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in TABLES:
        sys.exit(f"usage: cost-tables.py ATTNSCOPE {'|'.join(TABLES)}")
    TABLES[sys.argv[2]](sys.argv[1])
