#!/usr/bin/env python3
"""Training steps of GPT-2 124M: PyTorch beside attnscope, in turns.

    bench/peers/step.py build/fast/attnscope --dtype f32

Needs PyTorch in this interpreter, and 4 GiB for each form of it: attention by SDPA and in its eager
form, with huge pages for the allocator and as installed, each in a process that lives on. Each
round takes one step of every form and a measurement of attnscope, in turns; times are medians over
the rounds. bf16 is autocast; AdamW is the fused one; gradients are not clipped.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import own

HUGE = "glibc.malloc.hugetlb=1"
VOCABULARY, WIDTH, HEADS, LAYERS = 50257, 768, 12, 12


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attnscope", help="the program to compare with")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--malloc", default="huge,plain", metavar="LIST",
                        help="pages of PyTorch's allocator (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=("sdpa", "eager"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.malloc = arguments.malloc.split(",")
    for malloc in arguments.malloc:
        if malloc not in ("huge", "plain"):
            parser.error(f"--malloc: '{malloc}' is neither huge nor plain")
    return arguments


# ---- PyTorch, in a process of its own -------------------------------------------------------

def make_model(torch, length, attend):
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            shape = (*x.shape[:2], HEADS, WIDTH // HEADS)
            q, k, v = (part.view(shape).transpose(1, 2)
                       for part in self.qkv(self.norm1(x)).split(WIDTH, 2))
            x = x + self.o(attend(q, k, v).transpose(1, 2).reshape(x.shape))
            hidden = nn.functional.gelu(self.up(self.norm2(x)), approximate="tanh")
            return x + self.down(hidden)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            self.positions = nn.Embedding(length, WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(WIDTH)

        def forward(self, inputs, targets):
            x = self.tokens(inputs) + self.positions.weight
            for block in self.blocks:
                x = block(x)
            logits = nn.functional.linear(self.norm(x), self.tokens.weight)
            return nn.functional.cross_entropy(logits.view(-1, VOCABULARY), targets.view(-1))

    return Model()


def serve(arguments):
    """Two steps that warm up, and then one for each line that is read; prints its seconds."""
    import torch
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    hidden = torch.ones(arguments.seq, arguments.seq, dtype=torch.bool).triu(1)

    def attend(q, k, v):
        if arguments.serve == "sdpa":
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        return torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ v

    model = make_model(torch, arguments.seq, attend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    inputs, targets = torch.randint(VOCABULARY, (2, arguments.batch, arguments.seq))

    def step_s():
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "bf16"):
            loss = model(inputs, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start

    step_s()
    step_s()
    print(torch.__version__, flush=True)
    for _ in sys.stdin:
        print(step_s(), flush=True)


# ---- all of them, in turns ------------------------------------------------------------------

class Torch:
    """One form of PyTorch; its process ends with its input."""

    def __init__(self, arguments, attention, malloc):
        environment = dict(os.environ)
        environment.pop("GLIBC_TUNABLES", None)
        if malloc == "huge":
            environment["GLIBC_TUNABLES"] = HUGE
        self.process = subprocess.Popen(
            [sys.executable, __file__, arguments.attnscope, "--serve", attention, "--dtype",
             arguments.dtype, "--seq", str(arguments.seq), "--batch", str(arguments.batch),
             "--threads", str(arguments.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.version = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            sys.exit(f"step.py: signal {-status} ended PyTorch" if status < 0 else status or 1)
        return line.strip()

    def step_s(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.read())


def main():
    arguments = read_arguments()
    if arguments.serve:
        try:
            serve(arguments)
        except ImportError as error:
            sys.exit(f"step.py: {error}: install PyTorch (pip install torch) in {sys.executable}")
        return
    programs = {("attnscope", ""): lambda: own.step_s(arguments)}
    for malloc in arguments.malloc:
        for attention in ("sdpa", "eager"):
            peer = Torch(arguments, attention, malloc)
            programs[attention, malloc] = peer.step_s
    rows = [{"program": program, "malloc": malloc, "step_s": statistics.median(samples)}
            for (program, malloc), samples in own.in_turns(programs, arguments.rounds).items()]
    if arguments.json:
        print(json.dumps({"torch": peer.version, "dtype": arguments.dtype, "rows": rows},
                         indent=2))
        return
    print(f"GPT-2 124M, batch {arguments.batch}, {arguments.seq} tokens, {arguments.dtype}, "
          f"{arguments.threads} threads, PyTorch {peer.version}\n")
    print(f"{'program':10} {'malloc':7} {'step ms':>9} {'ahead':>6}")
    for row in rows:
        print(f"{row['program']:10} {row['malloc']:7} {1e3 * row['step_s']:9.1f} "
              f"{row['step_s'] / rows[0]['step_s']:6.2f}")


if __name__ == "__main__":
    main()
