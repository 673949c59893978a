"""What the scripts of this folder ask of attnscope: times of its own attention and steps."""
import json
import os
import subprocess
import sys


def bench(arguments, dtype, what, *words):
    """What "attnscope bench" prints; the allocator of the peers' processes is not ours."""
    command = [arguments.attnscope, "bench", what, "--json", "--repeats", "3",
               "--dtype", dtype, "--batch", str(arguments.batch),
               "--threads", str(arguments.threads), *words]
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    try:
        output = subprocess.run(command, capture_output=True, text=True, env=environment)
    except OSError as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {arguments.attnscope}: {error.strerror}")
    if output.returncode != 0:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {output.stderr.strip()}")
    return json.loads(output.stdout)


def attention_s(arguments, dtype, length, direction="forward,backward"):
    """Seconds of flash attention at this length, by direction."""
    rows = bench(arguments, dtype, "core", "--mechanisms", "flash", "--seq", str(length),
                 "--heads", str(arguments.heads), "--head-dim", str(arguments.head_dim),
                 "--direction", direction)["rows"]
    return {row["direction"]: row["time"]["median_s"] for row in rows}


def step_s(arguments):
    return bench(arguments, arguments.dtype, "step", "--model", "gpt2", "--mechanism", "flash",
                 "--seq", str(arguments.seq))["step"]["median_s"]


def in_turns(programs, rounds):
    """Samples, by name, of functions that each take one, called one after the other."""
    samples = {name: [] for name in programs}
    for _ in range(rounds):
        for name, measure in programs.items():
            samples[name].append(measure())
    return samples
