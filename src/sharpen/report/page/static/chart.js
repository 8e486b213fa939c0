"use strict";
// One chart: lines with their bands on uPlot, coloured by the page's variables, moved by mouse and keyboard.
sharpen.chart = (() => {
  const { number, percent, duration } = sharpen.dom;
  const COLOURS = 7;
  const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3]];
  const CLICK_PIXELS = 4; // less is a click, more is a selection

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (place) => css(`--series-${(place % COLOURS) + 1}`);
  const faded = (hex, opacity) =>
    hex + Math.round(255 * opacity).toString(16).padStart(2, "0"); // the page's colours are #rrggbb

  function shown(info, value) {
    return info.share ? percent(value, digits(value)) : number(value, 4);
  }

  // Three significant digits of what is small: a clip fraction of 0.04 % is not 0.
  function digits(share) {
    const size = Math.abs(share);
    return size === 0 || size >= 0.1 ? 1 : size >= 0.001 ? 2 : 3;
  }

  function onAxis(axis, value) {
    if (axis === "time") return duration(value);
    return axis === "tokens" && value >= 1e4 ? compact(value) : number(value, 6);
  }

  const compact = (value) => Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);

  // The table that uPlot draws from: one column of x, and of each line what is drawn of it, in the order of `series`.
  function table(lines) {
    const columns = (line) => [
      line.raw,
      ...(line.smooth ? [line.smooth] : []),
      ...(line.low ? [line.low, line.high] : []),
    ];
    if (!lines.length) return [[]];
    return uPlot.join(lines.map((line) => [line.x, ...columns(line)]));
  }

  // The options of uPlot for these columns. A band is drawn between the two last columns of its line.
  function series(lines) {
    const all = [{}];
    const bands = [];
    // What is behind a smoothed line is a shade of it, however many lines and points there are.
    const faint = 0.3 / Math.sqrt(lines.length * Math.max(1, Math.max(...lines.map((line) => line.x.length)) / 300));
    lines.forEach((line, i) => {
      const stroke = line.variable ? css(line.variable) : colour(line.place ?? i);
      const dash = DASHES[(line.dash ?? 0) % DASHES.length];
      const points = { show: line.raw.length <= 40, size: 5, fill: stroke, stroke };
      const plain = { spanGaps: true, points: { show: false } };
      all.push(
        line.smooth
          ? { ...plain, stroke: faded(stroke, faint), width: 1 }
          : { ...plain, stroke, width: 1.8, dash, points },
      );
      if (line.smooth) all.push({ ...plain, stroke, width: 2, dash });
      if (line.low) {
        all.push({ ...plain, stroke: "transparent", width: 0 }, { ...plain, stroke: "transparent", width: 0 });
        bands.push({ series: [all.length - 1, all.length - 2], fill: faded(stroke, 0.16) });
      }
    });
    return { series: all, bands };
  }

  function axes({ axis, info, ticks }) {
    const base = {
      stroke: css("--soft"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: css("--faint"), width: 1 },
      ticks: { show: false },
    };
    // uPlot gives null for a tick that is to have no label.
    const labels = (label) => (u, at) => at.map((value) => (value === null ? "" : label(value, at)));
    return [
      { ...base, grid: { show: false }, size: 26, space: 60, values: labels((value) => (ticks ? ticks(value) : onAxis(axis, value))) },
      { ...base, size: 52, space: 32, values: labels((value, all) => tick(info, value, all)) },
    ];
  }

  function tick(info, value, all) {
    if (!info.share) return Math.abs(value) >= 1e4 ? compact(value) : number(value, 3);
    const gap = all.length > 1 ? Math.abs(all[1] - all[0]) : 1;
    return percent(value, gap < 0.001 ? 2 : gap < 0.01 ? 1 : 0);
  }

  function range(info, log) {
    if (log) return (u, low, high) => (low === null ? [0.1, 1] : uPlot.rangeLog(low, high, 10, false));
    return (u, low, high) => {
      if (low === null) return [0, 1];
      const [from, to] = uPlot.rangeNum(low, high, { min: { pad: 0.08, soft: 0, mode: 3 }, max: { pad: 0.08, mode: 0 } });
      // A share is never drawn as if it could leave 0 to 1, unless it does.
      return info.share ? [Math.max(from, Math.min(0, low)), Math.min(to, Math.max(1.02, high))] : [from, to];
    };
  }

  // Draw into `place`. options: {info, axis, log, logX, height, sync, ticks, onCursor(x or null), onClick(x), onZoom({min, max})}
  function draw(place, lines, options) {
    const { info, log = false, logX = 0, height = 190 } = options;
    const scale = { time: false };
    if (logX) Object.assign(scale, { distr: 3, log: logX });
    const chart = new uPlot(
      {
        width: Math.max(120, place.clientWidth),
        height,
        legend: { show: false },
        padding: [8, 20, 0, 0],
        scales: { x: scale, y: { distr: log ? 3 : 1, range: range(info, log) } },
        axes: axes(options),
        cursor: {
          y: false,
          points: { size: 7 },
          drag: { x: true, y: false, dist: CLICK_PIXELS, setScale: false },
          bind: { dblclick: () => null },
          ...(options.sync ? { sync: synchronised(options.sync) } : {}),
        },
        hooks: {
          setCursor: [(u) => options.onCursor?.(u.cursor.idx === null || u.cursor.idx === undefined ? null : u.data[0][u.cursor.idx])],
          setSelect: [(u) => select(u, options.onZoom)],
        },
        ...series(lines),
      },
      table(lines),
      place,
    );
    if (options.onClick) clicks(chart, options.onClick);
    return chart;
  }

  // The cursor is shared, a selection is not: whoever holds the charts zooms them all.
  function synchronised(key) {
    return { key, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } };
  }

  function select(chart, onZoom) {
    const { left, width } = chart.select;
    if (width <= 0) return;
    const [min, max] = [left, left + width].map((at) => chart.posToVal(at, "x"));
    chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    onZoom?.({ min, max });
  }

  function clicks(chart, onClick) {
    let from = null;
    chart.over.addEventListener("mousedown", (event) => (from = event.clientX));
    chart.over.addEventListener("click", (event) => {
      const moved = from === null || Math.abs(event.clientX - from) >= CLICK_PIXELS;
      const at = chart.cursor.idx;
      if (!moved && event.detail === 1 && at !== null && at !== undefined) onClick(chart.data[0][at]);
    });
  }

  // Move the cursor by key, here and in the charts beside it. Returns the x it is at, null for another key.
  function move(chart, key) {
    const xs = chart.data[0];
    const { min, max } = chart.scales.x;
    const first = xs.findIndex((x) => x >= min);
    const last = xs.findLastIndex((x) => x <= max);
    if (first < 0 || last < 0) return null;
    const now = chart.cursor.idx ?? last;
    const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: first, End: last, PageUp: now - 10, PageDown: now + 10 }[key];
    if (to === undefined) return null;
    const x = xs[Math.min(last, Math.max(first, to))];
    put(chart, x);
    return x;
  }

  function put(chart, x) {
    chart.setCursor({ left: chart.valToPos(x, "x"), top: chart.over.clientHeight / 2 }, true, true);
  }

  return { draw, move, table, shown, onAxis, colour, css };
})();
