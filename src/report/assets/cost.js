// Draws the charts of a page of costs from the JSON in the page. Each canvas says what it shows in
// its data attributes; colours come from the style sheet.
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const rows = data.rows.filter((row) => !row.why);
  const mechanisms = [...new Set(rows.map((row) => row.mechanism))];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (i) => css("--series-" + (i % 8 + 1));
  const units = {
    matmul: "FLOP", memory: "B", time: "s", roofline: "FLOP/s",
  };
  const sum = (row) => row.forward.matmul_flop + row.backward.matmul_flop +
    row.recomputed.matmul_flop + row.update.matmul_flop;

  // 2e11 as "200 G", 3e-3 as "3 m"
  function prefixed(value, unit) {
    if (!value) return "0 " + unit;
    const step = Math.max(-3, Math.min(6, Math.floor(Math.log10(Math.abs(value)) / 3)));
    return Number((value / 1000 ** step).toPrecision(3)) + " " + "num kMGTPE"[step + 3].trim() + unit;
  }
  const value = {
    matmul: (row) => sum(row),
    memory: (row) => row.memory.total_bytes,
    time: (row, device) => row.predictions[device].time_s.value,
  };

  // Lengths at which a curve crosses that of flash, by straight lines between logarithms.
  function crossings(kind, device) {
    const curve = (name) => rows.filter((row) => row.mechanism === name)
      .map((row) => [row.keys, Math.log(value[kind](row, device))]);
    const reference = curve("flash"), found = [];
    for (const name of mechanisms) {
      if (name === "flash" || !reference.length) continue;
      const points = curve(name);
      for (let i = 1; i < Math.min(points.length, reference.length); i++) {
        const before = points[i - 1][1] - reference[i - 1][1], after = points[i][1] - reference[i][1];
        if (before * after >= 0) continue;
        const share = before / (before - after), a = Math.log(points[i - 1][0]), b = Math.log(points[i][0]);
        found.push([name, Math.exp(a + share * (b - a)), Math.exp(reference[i - 1][1] +
          share * (reference[i][1] - reference[i - 1][1])), after < 0]);
      }
    }
    return found;
  }

  // The interval of each point, and rings where curves cross.
  const marks = {
    id: "marks",
    afterDatasetsDraw(chart) {
      const { ctx, scales: { x, y } } = chart;
      ctx.save();
      ctx.lineWidth = 1;
      chart.data.datasets.forEach((set) => (set.spans || []).forEach((span, i) => {
        const at = x.getPixelForValue(set.data[i].x);
        ctx.strokeStyle = set.borderColor;
        ctx.beginPath();
        ctx.moveTo(at, y.getPixelForValue(span[0]));
        ctx.lineTo(at, y.getPixelForValue(span[1]));
        ctx.stroke();
      }));
      ctx.strokeStyle = css("--ink");
      for (const [, length, height] of chart.options.crossings || []) {
        ctx.beginPath();
        ctx.arc(x.getPixelForValue(length), y.getPixelForValue(height), 6, 0, 2 * Math.PI);
        ctx.stroke();
      }
      ctx.restore();
    },
  };

  function curves(kind, device) {
    const sets = [];
    mechanisms.forEach((name, i) => {
      const own = rows.filter((row) => row.mechanism === name);
      sets.push({
        label: name, borderColor: colour(i), backgroundColor: colour(i), borderWidth: 2,
        data: own.map((row) => ({ x: row.keys, y: value[kind](row, device) })),
        spans: kind === "time" ? own.map((row) => {
          const time = row.predictions[device].time_s;
          return [time.low, time.high];
        }) : null,
      });
      if (kind === "matmul")
        sets.push({
          label: name + ", useful", borderColor: colour(i), borderDash: [4, 3], borderWidth: 1, pointRadius: 0,
          data: own.filter((row) => row.matmul_by_convention.useful !== null)
            .map((row) => ({ x: row.keys, y: row.matmul_by_convention.useful })),
        });
    });
    return sets;
  }

  function roofline(device) {
    const machine = data.devices[device];
    const sets = mechanisms.map((name, i) => ({
      label: name, borderColor: colour(i), backgroundColor: colour(i), showLine: false,
      data: rows.filter((row) => row.mechanism === name).map((row) => {
        const p = row.predictions[device];
        return { x: sum(row) / p.traffic_bytes, y: sum(row) / p.time_s.value };
      }),
    }));
    const all = sets.flatMap((set) => set.data.map((point) => point.x));
    const ends = [Math.min(machine.ridge_flop_per_byte / 8, ...all), machine.ridge_flop_per_byte,
      Math.max(machine.ridge_flop_per_byte * 8, ...all)];
    sets.push({
      label: "roof", borderColor: css("--ink"), borderWidth: 1.5, pointRadius: 0,
      data: ends.map((x) => ({ x, y: Math.min(machine.matmul_flop_per_s, x * machine.bandwidth_byte_per_s) })),
    });
    return sets;
  }

  function draw(canvas) {
    const kind = canvas.dataset.chart, device = Number(canvas.dataset.device);
    const isRoof = kind === "roofline", found = kind === "time" ? crossings(kind, device) : [];
    const lengths = [...new Set(rows.map((row) => row.keys))].sort((a, b) => a - b);
    // Ticks at the lengths of the tables, or where a number begins with 1, 2 or 5.
    const sets = isRoof ? roofline(device) : curves(kind, device);
    const heights = sets.flatMap((set) => (set.spans ? set.spans.flat() : set.data.map((point) => point.y)));
    const ends = {
      tokens: { min: lengths[0] / 1.2, max: lengths[lengths.length - 1] * 1.2 },
      height: { suggestedMin: Math.min(...heights), suggestedMax: Math.max(...heights) },
    };
    const axis = (title, unit) => ({
      type: "logarithmic", title: { display: true, text: title, color: css("--ink") },
      grid: { color: css("--line") }, ...(title === "tokens" ? ends.tokens : unit ? ends.height : {}),
      afterBuildTicks(scale) {
        const at = title === "tokens" ? lengths.map((v) => ({ value: v }))
          : scale.ticks.filter((tick) => [1, 2, 5].includes(Number(tick.value.toExponential()[0])));
        if (at.length) scale.ticks = at;
      },
      ticks: { color: css("--ink"), callback: (v) => (unit === "" ? v : prefixed(v, unit)) },
    });
    canvas.parentElement.querySelector("figcaption").textContent = found.map(([name, length, , ahead]) =>
      name + (ahead ? " gets ahead of" : " falls behind") + " flash at about " + Math.round(length) + " tokens").join("; ");
    return new Chart(canvas, {
      type: "line", plugins: [marks],
      data: { datasets: sets },
      options: {
        animation: false, parsing: false, crossings: found, aspectRatio: 2,
        scales: {
          x: axis(isRoof ? "FLOP a byte" : "tokens", ""), y: axis(units[kind], units[kind]),
        },
        plugins: { legend: { labels: { color: css("--ink"), filter: (item) => !item.text.endsWith(", useful") } } },
      },
    });
  }

  let charts = [];
  function redraw() {
    charts.forEach((chart) => chart.destroy());
    charts = [...document.querySelectorAll("canvas[data-chart]")].map(draw);
  }
  redraw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
})();
