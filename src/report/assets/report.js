// Draws the charts of a report from the JSON in the page. Every figure element says what it
// shows in its data attributes; colours come from the style sheet, so that light, dark and
// paper need nothing here but a redraw.
"use strict";
(function () {
  const mechanisms = JSON.parse(document.getElementById("data").textContent);
  const charts = [];
  const dashes = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const series = (i) => css("--series-" + (i % 8 + 1));
  const fade = (colour, share) =>
    colour + Math.round(share * 255).toString(16).padStart(2, "0");
  const shades = [1, 0.6, 0.4, 0.25]; // of the bars of runs A, B, C, D
  const shapes = ["circle", "rect", "triangle", "rectRot"];
  function figureOf(mechanism, name) {
    const f = mechanism.figures[name];
    return f && { median: f[0], low: f[1], high: f[2] };
  }

  // ---- numbers: the same rules as the tables ----
  function decimalsFor(value, low, high) {
    const spread = low === null || high === null ? 0 : high - low;
    const digits = spread > 0 && value
      ? Math.min(4, Math.max(2, Math.ceil(Math.log10(Math.abs(value) / spread)) + 1)) : 4;
    return value ? digits - 1 - Math.floor(Math.log10(Math.abs(value))) : 0;
  }
  function format(value, decimals) {
    if (value === 0) return "0";
    const own = Math.floor(Math.log10(Math.abs(value)));
    const digits = Math.min(15, Math.max(2, decimals + 1 + own));
    if (own >= 9 || own < -4) return value.toExponential(Math.min(3, digits - 1));
    return Number(value.toPrecision(digits)).toFixed(Math.max(0, digits - 1 - own));
  }
  const plain = (value) => format(value, decimalsFor(value, null, null));
  // 2e11 as "200 G": ticks of the axis of operations.
  function prefixed(value) {
    const step = Math.min(6, Math.floor(Math.log10(Math.abs(value) || 1) / 3));
    return step < 2 ? value : Number((value / 1000 ** step).toPrecision(4)) + " " + "  MGTPE"[step];
  }

  // ---- what Chart.js does not draw: whiskers, ticks and values at the end of bars ----
  const annotations = {
    id: "annotations",
    afterDatasetsDraw(chart) {
      const rows = chart.options.rows;
      if (!rows) return;
      const { ctx, scales: { x }, chartArea } = chart;
      const bars = chart.getDatasetMeta(0).data;
      ctx.save();
      ctx.font = "12px system-ui, sans-serif";
      ctx.textBaseline = "middle";
      rows.forEach((row, i) => {
        const y = bars[i].y, half = Math.min(6, bars[i].height / 3);
        let right = row.end === null ? chartArea.left : x.getPixelForValue(row.end);
        ctx.strokeStyle = ctx.fillStyle = css("--ink");
        if (row.low !== null) {
          const a = x.getPixelForValue(row.low), b = x.getPixelForValue(row.high);
          ctx.lineWidth = 1.4;
          ctx.beginPath();
          ctx.moveTo(a, y); ctx.lineTo(b, y);
          ctx.moveTo(a, y - half); ctx.lineTo(a, y + half);
          ctx.moveTo(b, y - half); ctx.lineTo(b, y + half);
          ctx.stroke();
          right = Math.max(right, b);
        }
        if (row.mark !== null) {
          const m = x.getPixelForValue(row.mark), tall = bars[i].height / 2 + 3;
          ctx.lineWidth = 2.5;
          ctx.beginPath();
          ctx.moveTo(m, y - tall); ctx.lineTo(m, y + tall);
          ctx.stroke();
          right = Math.max(right, m);
        }
        ctx.fillStyle = css("--soft");
        ctx.fillText(row.label, right + 8, y);
      });
      ctx.restore();
    },
  };

  function axis(title, grid) {
    return {
      title: { display: !!title, text: title, color: css("--soft") },
      ticks: { color: css("--soft"), maxRotation: 0 },
      grid: { color: grid ? css("--line") : "transparent", drawBorder: false },
    };
  }

  function pair(text) {
    const at = text.indexOf(":");
    return { figure: text.slice(0, at), label: text.slice(at + 1) };
  }

  function rowOf(mechanism, spec) {
    const scaled = (v) => (v === null || v === undefined ? null : v * spec.factor);
    const whole = spec.total || (spec.parts.length === 1 ? spec.parts[0].figure : spec.mark.figure);
    const figure = figureOf(mechanism, whole);
    const mark = spec.mark && figureOf(mechanism, spec.mark.figure);
    const value = figure ? scaled(figure.median) : null;
    const low = figure ? scaled(figure.low) : null, high = figure ? scaled(figure.high) : null;
    const state = mechanism.reason ? "no trial done" : "\u2013";
    const row = { low: null, high: null, mark: mark ? scaled(mark.median) : null, end: value,
      value, decimals: value === null ? Infinity : decimalsFor(value, low, high), label: state };
    if (low !== null && high > low) { row.low = low; row.high = high; }
    if (spec.kind === "intervals" && value !== null) {
      Object.assign(row, { low: null, high: null, mark: value, end: high === null ? value : high });
      row.isModelled = true;
    }
    return row;
  }

  function drawBars(element, spec) {
    const rows = mechanisms.map((m) => rowOf(m, spec));
    const decimals = Math.min(...rows.map((r) => r.decimals));
    rows.filter((r) => r.value !== null).forEach((r) => {
      r.label = (r.isModelled ? "~" : "") + format(r.value, decimals);
    });
    const labels = mechanisms.map((m) => m.mechanism);
    const value = (m, name) => {
      const f = figureOf(m, name);
      return f && f.median !== null ? f.median * spec.factor : null;
    };
    const datasets = spec.parts.map((part, i) => ({
      label: part.label,
      data: mechanisms.map((m) => {
        if (spec.kind !== "intervals") return value(m, part.figure);
        const f = figureOf(m, part.figure);
        return f && f.low !== null ? [f.low * spec.factor, f.high * spec.factor] : null;
      }),
      backgroundColor: mechanisms.map((m) => spec.kind === "intervals"
        ? fade(css("--caution"), 0.4) : fade(series(i), shades[(m.run || 0) % 4])),
      barPercentage: 0.62, categoryPercentage: 1, stack: "all",
    }));
    element.parentNode.style.height = 62 + 30 * labels.length + (spec.parts.length > 1 ? 34 : 0) + "px";
    return new Chart(element, {
      type: "bar",
      data: { labels, datasets },
      plugins: [annotations],
      options: {
        indexAxis: "y", animation: false, maintainAspectRatio: false, rows,
        devicePixelRatio: Math.max(2, window.devicePixelRatio || 1),
        layout: { padding: { right: 62 } },
        scales: {
          x: Object.assign(axis(spec.unit, true), { stacked: true, beginAtZero: true,
            suggestedMax: Math.max(...rows.map((r) => Math.max(r.end, r.high, r.mark))) }),
          y: Object.assign(axis("", false), { stacked: true,
            ticks: { color: css("--ink"), autoSkip: false, callback(v) {
              const name = this.getLabelForValue(v);
              const short = name.length > 16 ? name.slice(0, 15) + "\u2026" : name;
              return mechanisms[v].sees_future ? [short, "sees the future"] : short;
            } } }),
        },
        plugins: {
          legend: { display: spec.parts.length > 1, position: "top", align: "start",
            labels: { color: css("--ink"), boxWidth: 12, boxHeight: 12 } },
          tooltip: { callbacks: { label(item) {
            const raw = item.raw, text = Array.isArray(raw)
              ? plain(raw[0]) + " to " + plain(raw[1]) : plain(raw);
            return item.dataset.label + ": " + text + " " + spec.unit;
          } } },
        },
      },
    });
  }

  // ---- loss curves ----
  const points = (curve, kind) => curve[kind].map((x, i) => ({ x, y: curve.loss[i] }));

  function drawLoss(element, kind) {
    const titles = { steps: "optimizer steps", seconds: "seconds of training", flop: "operations, all three classes",
      joules: "joules, the mean of a step each" };
    const datasets = [];
    mechanisms.forEach((m) => {
      const [colour, dash, point] = m.look;
      const name = m.mechanism + (m.sees_future ? " (sees the future)" : "");
      datasets.push({ label: name, data: points(m.held_out, kind), borderColor: series(colour),
        backgroundColor: series(colour), borderDash: dashes[dash], borderWidth: 2, pointRadius: 3,
        pointStyle: shapes[point], spanGaps: true });
      datasets.push({ label: name, data: points(m.training, kind),
        borderColor: fade(series(colour), 0.28), borderWidth: 1.2, pointRadius: 0, spanGaps: true,
        isTraining: true });
    });
    element.parentNode.style.height = "420px";
    return new Chart(element, {
      type: "line",
      data: { datasets },
      options: {
        animation: false, maintainAspectRatio: false, parsing: false,
        devicePixelRatio: Math.max(2, window.devicePixelRatio || 1),
        interaction: { mode: "nearest", intersect: false },
        scales: {
          x: Object.assign(axis(titles[kind], true), { type: "linear", beginAtZero: true,
            ticks: { color: css("--soft"), maxRotation: 0, callback: prefixed } }),
          y: axis("loss, nat per token", true),
        },
        plugins: {
          legend: { position: "top", align: "start",
            labels: { color: css("--ink"), usePointStyle: true, boxHeight: 7, padding: 16,
              filter: (item, d) => !d.datasets[item.datasetIndex].isTraining },
            onClick(event, item, legend) {
              const chart = legend.chart, show = !chart.isDatasetVisible(item.datasetIndex);
              chart.setDatasetVisibility(item.datasetIndex, show);
              chart.setDatasetVisibility(item.datasetIndex + 1, show);
              chart.update();
            } },
          tooltip: { callbacks: {
            title: (items) => plain(items[0].parsed.x) + " " + titles[kind],
            label: (item) => item.dataset.label + (item.dataset.isTraining ? ", training: " :
              ", held-out: ") + plain(item.parsed.y) } },
        },
      },
    });
  }

  // ---- loss against its cost ----
  function drawScatter(element, figure, label, unit) {
    const all = mechanisms.map((m) => {
      const x = figureOf(m, figure), y = figureOf(m, "held_out_loss");
      return { name: m.mechanism + (m.sees_future ? " (sees the future)" : ""), look: m.look,
        isFront: m.front.includes(figure), x: x ? x.median : null, y: y ? y.median : null };
    }).filter((p) => p.x !== null && p.y !== null);
    // Beside the points, or below them where that leaves too little room.
    const longest = Math.max(...all.map((p) => p.name.length));
    const place = (width) => (width < 320 + 9 * longest ? "bottom" : "right");
    const front = all.filter((p) => p.isFront).sort((a, b) => a.x - b.x);
    element.parentNode.style.height = Math.max(320, 60 + 21 * all.length) + "px";
    return new Chart(element, {
      type: "scatter",
      data: { datasets: all.map((p) => ({ label: p.name, data: [{ x: p.x, y: p.y }],
        backgroundColor: series(p.look[0]), pointRadius: 6, pointHoverRadius: 8,
        pointStyle: shapes[p.look[2]] }))
        .concat([{ label: "best", data: front.map((p) => ({ x: p.x, y: p.y })), showLine: true,
          pointRadius: 0, borderColor: css("--soft"), borderWidth: 1.2, borderDash: [4, 4] }]) },
      options: {
        animation: false, maintainAspectRatio: false,
        onResize(chart, size) { chart.options.plugins.legend.position = place(size.width); },
        devicePixelRatio: Math.max(2, window.devicePixelRatio || 1),
        scales: { x: Object.assign(axis(label + ", " + unit, true), { type: "linear" }),
          y: axis("held-out loss, nat per token", true) },
        plugins: {
          legend: { position: place(element.parentNode.clientWidth), labels: { color: css("--ink"),
            usePointStyle: true, boxHeight: 7, filter: (item) => item.text !== "best" } },
          tooltip: { callbacks: { label: (item) => item.dataset.label + ": " +
            plain(item.parsed.y) + " nat, " + plain(item.parsed.x) + " " + unit } },
        },
      },
    });
  }

  // ---- power over time, and the energy that it sums up to ----
  function integral(power) {
    let sum = 0;
    return power.seconds.map((x, k) => {
      // What was not seen is not nothing: from there on the sum is unknown.
      sum += (power.watts[k] ?? NaN) * (x - (k ? power.seconds[k - 1] : 0));
      return { x, y: sum };
    });
  }
  function drawPower(element, quantity) {
    const datasets = [];
    mechanisms.filter((m) => m.power).forEach((m) => {
      Object.keys(m.power).forEach((domain, d) => {
        const power = m.power[domain];
        datasets.push({ label: m.mechanism + ", " + domain, borderColor: series(m.look[0]),
          backgroundColor: series(m.look[0]), borderDash: dashes[(m.look[1] + d) % 4],
          borderWidth: 1.5, pointRadius: 0, spanGaps: true,
          data: quantity === "energy" ? integral(power)
            : power.seconds.map((x, k) => ({ x, y: power.watts[k] })) });
      });
    });
    // Room for the legend: some five labels a line.
    element.parentNode.style.height = 320 + 22 * Math.ceil(datasets.length / 5) + "px";
    return new Chart(element, {
      type: "line",
      data: { datasets },
      options: {
        animation: false, maintainAspectRatio: false, parsing: false,
        devicePixelRatio: Math.max(2, window.devicePixelRatio || 1),
        scales: { x: Object.assign(axis("seconds of training", true), { type: "linear" }),
          y: Object.assign(axis(quantity === "energy" ? "energy, J" : "power, W", true),
            { beginAtZero: true }) },
        plugins: { legend: { position: "top", align: "start",
          labels: { color: css("--ink"), boxWidth: 12, boxHeight: 2 } } },
      },
    });
  }

  // ---- the ranking sorts by any column; what is absent stays last ----
  function sortBy(head) {
    const rows = Array.from(head.closest("table").tBodies[0].rows);
    const isRising = head.getAttribute("aria-sort") === "none"
      ? head.dataset.rising !== "0" : head.getAttribute("aria-sort") === "descending";
    const value = (row) => {
      const cell = row.cells[head.cellIndex];
      if (head.cellIndex === 0) return cell.textContent;
      return cell && cell.dataset.value ? Number(cell.dataset.value) : null;
    };
    rows.map((row) => ({ row, value: value(row) })).sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      const order = a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
      return isRising ? order : -order;
    }).forEach((o) => o.row.parentNode.appendChild(o.row));
    head.parentNode.querySelectorAll("th").forEach((th) => th.setAttribute("aria-sort",
      th !== head ? "none" : isRising ? "ascending" : "descending"));
  }
  document.querySelectorAll(".ranking th button").forEach((button) =>
    button.addEventListener("click", () => sortBy(button.closest("th"))));

  // ---- drawing all, and again when the colours change ----
  const chosen = { loss: "steps", power: "power" };
  function drawAll() {
    charts.splice(0).forEach((c) => c.destroy());
    Chart.defaults.font.family = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
    document.querySelectorAll("figure[data-kind]").forEach((figure) => {
      const d = figure.dataset, canvas = figure.querySelector("canvas");
      if (d.kind === "loss") { charts.push(drawLoss(canvas, chosen.loss)); return; }
      if (d.kind === "scatter") { charts.push(drawScatter(canvas, d.x, d.axis, d.unit)); return; }
      if (d.kind === "power") { charts.push(drawPower(canvas, chosen.power)); return; }
      charts.push(drawBars(canvas, { kind: d.kind, unit: d.unit, factor: Number(d.factor),
        parts: d.series.split(",").map(pair), total: d.total, mark: d.mark && pair(d.mark) }));
    });
  }
  document.querySelectorAll("button[data-choice]").forEach((button) => {
    button.addEventListener("click", () => {
      chosen[button.closest("figure").dataset.kind] = button.dataset.choice;
      button.parentNode.querySelectorAll("button").forEach((b) =>
        b.setAttribute("aria-pressed", String(b === button)));
      drawAll();
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => {
    document.documentElement.dataset.print = "";
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.print;
    drawAll();
  });
  drawAll();
})();
