#!/usr/bin/env python3
"""Causal attention: PyTorch's SDPA and its eager form beside attnscope, in turns.

    bench/peers/attention.py build/fast/attnscope --seq 1024,2048,4096

Needs PyTorch in this interpreter. Each round measures every program once at every length, so that
whatever slows the machine slows all of them; times are medians over the rounds. PyTorch runs with
huge pages for its allocator (--malloc plain: as installed), which helps it on most machines.
"""
import argparse
import json
import os
import statistics
import sys
import time
from functools import partial

import own

HUGE = "glibc.malloc.hugetlb=1"


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attnscope", help="the program to compare with")
    parser.add_argument("--seq", default="512,1024,2048,4096", help="lengths (default %(default)s)")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--eager-up-to", type=int, default=4096,
                        help="longest sequence of the eager form, which keeps the square")
    parser.add_argument("--malloc", choices=("huge", "plain"), default="huge")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def eager(torch, q, k, v, hidden):
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ v


def time_torch(torch, attend, arguments, length):
    """Seconds forward and backward, once, after one call that warms up."""
    width = arguments.heads * arguments.head_dim
    dtype = torch.bfloat16 if arguments.dtype == "bf16" else torch.float32
    rows = torch.randn(arguments.batch, length, 3 * width, dtype=dtype, requires_grad=True)
    for _ in range(2):
        q, k, v = (part.view(arguments.batch, length, arguments.heads, -1).transpose(1, 2)
                   for part in rows.split(width, 2))
        start = time.perf_counter()
        o = attend(q, k, v)
        forward = time.perf_counter() - start
        gradient = torch.ones_like(o)
        start = time.perf_counter()
        o.backward(gradient)
        backward = time.perf_counter() - start
        rows.grad = None
    return forward, backward


def main():
    arguments = read_arguments()
    if arguments.malloc == "huge" and HUGE not in os.environ.get("GLIBC_TUNABLES", ""):
        environment = dict(os.environ, GLIBC_TUNABLES=HUGE)
        os.execve(sys.executable, [sys.executable] + sys.argv, environment)
    try:
        import torch
        from torch.nn.functional import scaled_dot_product_attention
    except ImportError as error:
        sys.exit(f"attention.py: {error}: install PyTorch (pip install torch) in {sys.executable}")
    torch.set_num_threads(arguments.threads)
    lengths = [int(length) for length in arguments.seq.split(",")]
    hidden = torch.ones(max(lengths), max(lengths), dtype=torch.bool).triu(1)

    def run_sdpa(length):
        return time_torch(torch, lambda q, k, v: scaled_dot_product_attention(
            q, k, v, is_causal=True), arguments, length)

    def run_eager(length):
        return time_torch(torch, lambda q, k, v: eager(
            torch, q, k, v, hidden[:length, :length]), arguments, length)

    def run_attnscope(length):
        times = own.attention_s(arguments, arguments.dtype, length)
        return times["forward"], times["backward"]

    programs = {}
    for length in lengths:
        for name, run in (("attnscope", run_attnscope), ("sdpa", run_sdpa), ("eager", run_eager)):
            if name != "eager" or length <= arguments.eager_up_to:
                programs[length, name] = partial(run, length)
    rows = []
    for (length, name), samples in own.in_turns(programs, arguments.rounds).items():
        forward = statistics.median(sample[0] for sample in samples)
        both = statistics.median(sum(sample) for sample in samples)
        rows.append({"seq": length, "program": name, "forward_s": forward, "both_s": both})
    flop = 2 * arguments.batch * arguments.heads * arguments.head_dim
    if arguments.json:
        print(json.dumps({"torch": torch.__version__, "malloc": arguments.malloc,
                          "dtype": arguments.dtype, "rows": rows}, indent=2))
        return
    print(f"PyTorch {torch.__version__}, {arguments.malloc} malloc, {arguments.threads} threads, "
          f"batch {arguments.batch}, {arguments.heads} heads of {arguments.head_dim}, "
          f"{arguments.dtype}\n")
    print(f"{'seq':>6} {'program':10} {'forward ms':>11} {'both ms':>9} {'GFLOP/s':>8} "
          f"{'both':>6} {'ahead':>6} {'both':>6}")
    for row in rows:
        ours = next(r for r in rows if r["seq"] == row["seq"] and r["program"] == "attnscope")
        useful = flop * row["seq"] * (row["seq"] + 1)
        print(f"{row['seq']:6} {row['program']:10} {1e3 * row['forward_s']:11.2f} "
              f"{1e3 * row['both_s']:9.2f} {1e-9 * useful / row['forward_s']:8.0f} "
              f"{3.5e-9 * useful / row['both_s']:6.0f} "
              f"{row['forward_s'] / ours['forward_s']:6.2f} {row['both_s'] / ours['both_s']:6.2f}")


if __name__ == "__main__":
    main()
