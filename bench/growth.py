#!/usr/bin/env python3
"""Draws how time and memory of attention cores grow with the sequence, as SVG.

    attnscope bench core --mechanisms linear,gla --seq 1024-65536*4 --batch 1 --json > growth.json
    bench/growth.py growth.json > docs/growth.svg

Takes any number of such files. Time is forward and backward together.
"""
import json
import math
import sys

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b")
WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 280, 70, 40, 120


def load(paths):
    """mechanism -> tokens -> (milliseconds, MiB)"""
    series = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)["rows"]
        for row in rows:
            points = series.setdefault(row["mechanism"], {})
            time, memory = points.get(row["seq"], (0.0, 0.0))
            points[row["seq"]] = (time + 1e3 * row["time"]["median_s"],
                                  max(memory, row["memory_bytes"] / 2**20))
    return series


def text(x, y, words, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'


def panel(series, which, title, left):
    """One pair of axes, both logarithmic, from a power of two or ten to the next."""
    tokens = sorted({t for points in series.values() for t in points})
    values = [point[which] for points in series.values() for point in points.values()]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    across = math.log(tokens[-1] / tokens[0]) or 1.0

    def place(t, value):
        return (left + WIDTH * math.log(t / tokens[0]) / across,
                TOP + HEIGHT * (high - math.log10(value)) / (high - low))

    parts = [text(left + WIDTH / 2, TOP - 14, title, more=' font-weight="bold"'),
             f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" '
             'stroke="#888"/>']
    for t in tokens:
        x, _ = place(t, 10.0**low)
        parts.append(text(x, TOP + HEIGHT + 16, f"{t // 1024}k"))
        parts.append(f'<path d="M{x:.1f} {TOP}V{TOP + HEIGHT}" stroke="#ddd"/>')
    for power in range(low, high + 1):
        _, y = place(tokens[0], 10.0**power)
        parts.append(text(left - 6, y + 4, f"{10.0**power:g}", "end"))
        parts.append(f'<path d="M{left} {y:.1f}H{left + WIDTH}" stroke="#ddd"/>')
    for colour, (name, points) in zip(COLOURS, series.items()):
        line = [place(t, points[t][which]) for t in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{name}: '
                  f'{points[t][which]:.4g} at {t} tokens</title></circle>'
                  for (x, y), t in zip(line, sorted(points))]
    return parts


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    series = load(sys.argv[1:])
    whole = (LEFT + 2 * WIDTH + GAP + 20, TOP + HEIGHT + 60)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole[0]}" height="{whole[1]}" '
             f'viewBox="0 0 {whole[0]} {whole[1]}" font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>']
    parts += panel(series, 0, "time, ms, by tokens", LEFT)
    parts += panel(series, 1, "memory, MiB, by tokens", LEFT + WIDTH + GAP)
    for i, (colour, name) in enumerate(zip(COLOURS, series)):
        x = LEFT + i * 120
        parts.append(f'<path d="M{x} {whole[1] - 16}h24" stroke="{colour}" stroke-width="2"/>')
        parts.append(text(x + 30, whole[1] - 12, name, "start"))
    print("\n".join(parts + ["</svg>"]))


if __name__ == "__main__":
    main()
