#!/usr/bin/env python3
"""What ./quickstart takes at two commits: the build once each, and the runs in turns.

    bench/quickstart.py 2f11259
    bench/quickstart.py 2f11259 --mechanisms flash,linear --rounds 1 --write docs/SPEED.md

The later commit is HEAD, which runs in bfloat16 too. Steps and evaluations are the same on both
sides, and so are the mechanisms, which both must have. Builds bypass ccache. Prints Markdown;
--write puts it between the two "quickstart" comments of a file.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import goals

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="the earlier commit")
    parser.add_argument("--mechanisms", default="all")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3, help="runs of everything")
    parser.add_argument("--write", metavar="FILE", help="put the table there too")
    return parser.parse_args()


def timed_s(command, folder):
    """Seconds of a command, which must succeed."""
    environment = dict(os.environ, CCACHE_DISABLE="1")
    environment.pop("CMAKE_C_COMPILER_LAUNCHER", None)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"quickstart.py: {' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return time.perf_counter() - start


def build_s(commit, folder):
    """Seconds from nothing to a program, in a tree of its own."""
    os.mkdir(folder)
    packed = folder + ".tar"
    timed_s(["git", "archive", "--output", packed, commit], ROOT)
    timed_s(["tar", "-xf", packed, "-C", folder], ROOT)
    return timed_s(["cmake", "--preset", "fast"], folder) + timed_s(
        ["cmake", "--build", "--preset", "fast", "--target", "attnscope"], folder)


def run_s(folder, dtype, arguments):
    with tempfile.TemporaryDirectory() as results:
        return timed_s(["build/fast/attnscope", "run", "--mechanisms", arguments.mechanisms,
                        "--rounds", "1", "--dtype", dtype, "--steps", str(arguments.steps),
                        "--evaluate-every", str(arguments.steps),
                        "--store", os.path.join(results, "run.db"),
                        "--out", os.path.join(results, "report.html")], folder)


def make_table(arguments):
    with tempfile.TemporaryDirectory() as folder:
        trees = {commit: os.path.join(folder, name)
                 for commit, name in ((arguments.before, "before"), ("HEAD", "after"))}
        builds = {commit: build_s(commit, tree) for commit, tree in trees.items()}
        kinds = ((arguments.before, "f32"), ("HEAD", "f32"), ("HEAD", "bf16"))
        runs = {kind: [] for kind in kinds}
        for _ in range(arguments.rounds):
            for commit, dtype in kinds:
                runs[commit, dtype].append(run_s(trees[commit], dtype, arguments))
    names = {commit: subprocess.run(["git", "rev-parse", "--short", commit], cwd=ROOT,
                                    capture_output=True, text=True).stdout.strip()
             for commit in trees}
    first = statistics.median(runs[kinds[0]])
    first_all = builds[arguments.before] + first
    lines = ["| commit | precision | build, s | run, s | before / this | with the build |",
             "|---|---|---|---|---|---|"]
    for (commit, dtype), samples in runs.items():
        run, build = statistics.median(samples), builds[commit]
        lines.append(f"| {names[commit]} | {goals.NAMES[dtype]} | {build:.0f} | {run:.1f} | "
                     f"{first / run:.2f} | {first_all / (build + run):.2f} |")
    count = f"median of {arguments.rounds} runs" if arguments.rounds > 1 else "one run"
    return "\n".join(lines + [
        "", f"`attnscope run --mechanisms {arguments.mechanisms} --rounds 1 --steps "
        f"{arguments.steps}`, {count}; {goals.machine()}; load {os.getloadavg()[0]:.1f} at the "
        "end."]) + "\n"


def main():
    arguments = read_arguments()
    table = make_table(arguments)
    print(table, end="")
    if arguments.write:
        goals.write(arguments.write, "quickstart", table)


if __name__ == "__main__":
    main()
