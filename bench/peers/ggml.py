#!/usr/bin/env python3
"""Causal attention forward: ggml's flash attention on the CPU beside attnscope, in turns.

    bench/peers/ggml.py build/fast/attnscope --ggml FOLDER --seq 1024,2048,4096,8192

FOLDER holds libggml.so, at any depth: a build of llama.cpp, or the package libggml-python, which
is compiled for this processor by
    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary libggml-python libggml-python
At each length the rounds measure attnscope in float32 and bfloat16 and each type of ggml's keys
and values once, in turns; times are medians over the rounds. ggml's queries and results are
float32, whatever the type.
"""
import argparse
import array
import ctypes
import json
import math
import os
import random
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import own

TYPES = {"f32": 0, "f16": 1, "bf16": 30}
CPU = 0


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attnscope", help="the program to compare with")
    parser.add_argument("--ggml", required=True, metavar="FOLDER", help="where libggml.so lies")
    parser.add_argument("--seq", default="1024,2048,4096", help="lengths (default %(default)s)")
    parser.add_argument("--types", default="f32,f16", metavar="LIST",
                        help="of ggml's keys and values: f32, f16, bf16, which is slow "
                             "(default %(default)s)")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.types = arguments.types.split(",")
    for kind in arguments.types:
        if kind not in TYPES:
            parser.error(f"--types: '{kind}' is none of {', '.join(TYPES)}")
    return arguments


# ---- the few functions of libggml that attention needs --------------------------------------

class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p),
                ("no_alloc", ctypes.c_bool)]


SIZE, INT, LONG, FLOAT, POINTER = (ctypes.c_size_t, ctypes.c_int, ctypes.c_int64, ctypes.c_float,
                                   ctypes.c_void_p)
SIGNATURES = {
    "ggml_version": (ctypes.c_char_p,),
    "ggml_backend_dev_by_type": (POINTER, INT),
    "ggml_backend_load_all_from_path": (None, ctypes.c_char_p),
    "ggml_backend_dev_init": (POINTER, POINTER, ctypes.c_char_p),
    "ggml_backend_dev_backend_reg": (POINTER, POINTER),
    "ggml_backend_reg_get_proc_address": (POINTER, POINTER, ctypes.c_char_p),
    "ggml_init": (POINTER, InitParams),
    "ggml_new_tensor_4d": (POINTER, POINTER, INT, LONG, LONG, LONG, LONG),
    "ggml_flash_attn_ext": (POINTER,) + (POINTER,) * 5 + (FLOAT,) * 3,
    "ggml_new_graph": (POINTER, POINTER),
    "ggml_build_forward_expand": (None, POINTER, POINTER),
    "ggml_backend_alloc_ctx_tensors": (POINTER, POINTER, POINTER),
    "ggml_nbytes": (SIZE, POINTER),
    "ggml_quantize_chunk": (SIZE, INT, POINTER, POINTER, LONG, LONG, LONG, POINTER),
    "ggml_backend_tensor_set": (None, POINTER, POINTER, SIZE, SIZE),
    "ggml_backend_tensor_get": (None, POINTER, POINTER, SIZE, SIZE),
    "ggml_backend_graph_compute": (INT, POINTER, POINTER),
}


class Ggml:
    def __init__(self, folder, threads):
        found = sorted(Path(folder).rglob("libggml.so"))
        if not found:
            sys.exit(f"ggml.py: no libggml.so in {folder}: name a build of llama.cpp or of "
                     "libggml-python (bench/peers/ggml.py --help)")
        try:
            library = ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
            for name, (result, *parameters) in SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, parameters
                setattr(self, name.removeprefix("ggml_"), function)
        except (OSError, AttributeError) as error:
            sys.exit(f"ggml.py: {found[0]}: {error}")
        if not self.backend_dev_by_type(CPU):
            self.backend_load_all_from_path(str(found[0].parent).encode())
        device = self.backend_dev_by_type(CPU)
        if not device:
            sys.exit(f"ggml.py: {found[0].parent}: no backend for this processor beside libggml.so")
        self.backend = self.backend_dev_init(device, None)
        set_threads = self.backend_reg_get_proc_address(self.backend_dev_backend_reg(device),
                                                        b"ggml_backend_set_n_threads")
        ctypes.CFUNCTYPE(None, POINTER, INT)(set_threads)(self.backend, threads)


class Attention:
    """One causal attention in ggml, its tensors filled and the first call made."""

    def __init__(self, ggml, kind, arguments, length):
        self.ggml = ggml
        context = ggml.init(InitParams(1 << 20, None, True))
        shape = arguments.head_dim, length, arguments.heads, arguments.batch
        q = ggml.new_tensor_4d(context, TYPES["f32"], *shape)
        k = ggml.new_tensor_4d(context, TYPES[kind], *shape)
        v = ggml.new_tensor_4d(context, TYPES[kind], *shape)
        mask = ggml.new_tensor_4d(context, TYPES["f16"], length, length, 1, 1)
        self.o = ggml.flash_attn_ext(context, q, k, v, mask, arguments.head_dim ** -0.5, 0.0, 0.0)
        self.graph = ggml.new_graph(context)
        ggml.build_forward_expand(self.graph, self.o)
        if not ggml.backend_alloc_ctx_tensors(context, ggml.backend):
            sys.exit(f"ggml.py: no memory for {length} tokens")
        # Random numbers, repeated after a period that no two heads share.
        width = arguments.head_dim
        numbers = array.array("f", (random.gauss(0, 1) for _ in range(1031 * width)))
        rows = length * arguments.heads * arguments.batch
        numbers = (numbers * (rows // 1031 + 1))[:rows * width]
        for tensor, kind_of in ((q, "f32"), (k, kind), (v, kind)):
            self.fill(tensor, kind_of, numbers, width)
        hidden, seen = b"\x00\xfc", b"\x00\x00"  # float16: minus infinity, 0
        causal = b"".join(seen * (row + 1) + hidden * (length - row - 1) for row in range(length))
        ggml.backend_tensor_set(mask, causal, 0, len(causal))
        self.time_s()
        self.check(numbers, width, arguments.heads, row=min(length - 1, 70))

    def fill(self, tensor, kind, numbers, width):
        data = (ctypes.c_char * self.ggml.nbytes(tensor))()
        source = (ctypes.c_float * len(numbers)).from_buffer(numbers)
        if kind == "f32":
            ctypes.memmove(data, source, len(data))
        else:
            self.ggml.quantize_chunk(TYPES[kind], source, data, 0, len(numbers) // width, width,
                                     None)
        self.ggml.backend_tensor_set(tensor, data, 0, len(data))

    def check(self, numbers, width, heads, row):
        """One result of the first head against the definition: q, k and v are the same numbers."""
        tokens = [numbers[at * width:(at + 1) * width] for at in range(row + 1)]
        scores = [math.exp((sum(map(float.__mul__, tokens[row], token)) - width) * width ** -0.5)
                  for token in tokens]
        want = [sum(score * token[at] for score, token in zip(scores, tokens)) / sum(scores)
                for at in range(width)]
        got = (ctypes.c_float * width)()
        self.ggml.backend_tensor_get(self.o, got, 4 * width * heads * row, 4 * width)
        if not all(abs(a - b) < 0.05 for a, b in zip(want, got)):
            sys.exit("ggml.py: this libggml does not compute causal attention")

    def time_s(self):
        start = time.perf_counter()
        if self.ggml.backend_graph_compute(self.ggml.backend, self.graph) != 0:
            sys.exit("ggml.py: ggml failed to compute")
        return time.perf_counter() - start


# ---- all of them, in turns ------------------------------------------------------------------

def run_attnscope(arguments, dtype, length):
    return own.attention_s(arguments, dtype, length, "forward")["forward"]


def main():
    arguments = read_arguments()
    ggml = Ggml(arguments.ggml, arguments.threads)
    rows = []
    for length in map(int, arguments.seq.split(",")):
        programs = {f"attnscope {dtype}": partial(run_attnscope, arguments, dtype, length)
                    for dtype in ("f32", "bf16")}
        for kind in arguments.types:
            programs[f"ggml {kind}"] = Attention(ggml, kind, arguments, length).time_s
        for name, samples in own.in_turns(programs, arguments.rounds).items():
            rows.append({"seq": length, "program": name, "forward_s": statistics.median(samples)})
    version = ggml.version().decode()
    if arguments.json:
        print(json.dumps({"ggml": version, "rows": rows}, indent=2))
        return
    print(f"ggml {version}, {arguments.threads} threads, batch {arguments.batch}, "
          f"{arguments.heads} heads of {arguments.head_dim}\n")
    print(f"{'seq':>6} {'program':14} {'forward ms':>11} {'GFLOP/s':>8} {'f32 ahead':>10} "
          f"{'bf16 ahead':>11}")
    flop = 2 * arguments.batch * arguments.heads * arguments.head_dim
    time_s = {(row["seq"], row["program"]): row["forward_s"] for row in rows}
    for (length, program), forward_s in time_s.items():
        print(f"{length:6} {program:14} {1e3 * forward_s:11.2f} "
              f"{1e-9 * flop * length * (length + 1) / forward_s:8.0f} "
              f"{forward_s / time_s[length, 'attnscope f32']:10.2f} "
              f"{forward_s / time_s[length, 'attnscope bf16']:11.2f}")


if __name__ == "__main__":
    main()
