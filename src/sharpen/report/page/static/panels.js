"use strict";
// What is drawn where: the metrics of the shown runs sorted into panels, and the lines of a panel as numbers.
// Nothing here touches the page, so that each number can be followed from the data to the picture.
sharpen.panels = (() => {
  const AXES = {
    step: { title: "step", of: "step" },
    tokens: { title: "tokens", of: "tokens" },
    time: { title: "time", of: "time_s" },
  };
  const LOW = "_low";
  const HIGH = "_high";

  // A metric may be called like something that every object has.
  const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined);
  const column = (run, name) => own(run.series.values, name) ?? [];

  // What the catalogue says of a metric. A live run may log one that was not there when the page was loaded.
  function info(catalogue, name) {
    return own(catalogue, name) ?? { title: name, unit: "", direction: "none", meaning: "", normal: "", group: "Other", share: false, panel: name, place: Infinity };
  }

  const known = (values) => values.filter((value) => value !== null);

  // Every metric that a picture can show, in the order of the catalogue. Ends of intervals belong to their measure.
  function metrics(runs, catalogue) {
    const names = new Set(runs.flatMap((run) => Object.keys(run.series.values)));
    const isEnd = (name) =>
      name.startsWith("held_out/") &&
      [LOW, HIGH].some((end) => name.endsWith(end) && names.has(name.slice(0, -end.length)));
    return [...names]
      .filter((name) => !isEnd(name))
      .filter((name) => runs.some((run) => known(column(run, name)).length))
      .map((name) => [info(catalogue, name).place, name])
      .sort(([a, first], [b, second]) => (a === b ? (first < second ? -1 : 1) : a - b))
      .map(([, name]) => name);
  }

  // [{title, panels: [{title, metrics, info}], flat: [{metric, value}]}]: what never changes is said, not drawn.
  function groups(runs, catalogue) {
    const found = new Map();
    for (const metric of metrics(runs, catalogue)) {
      const about = info(catalogue, metric);
      if (!found.has(about.group)) found.set(about.group, { title: about.group, panels: new Map(), flat: [] });
      const group = found.get(about.group);
      const constant = about.direction === "up" ? null : onlyValue(runs, metric);
      if (constant !== null) {
        group.flat.push({ metric, value: constant });
        continue;
      }
      if (!group.panels.has(about.panel)) group.panels.set(about.panel, { title: about.panel, metrics: [], info: about });
      group.panels.get(about.panel).metrics.push(metric);
    }
    return [...found.values()].map((group) => ({ ...group, panels: [...group.panels.values()] }));
  }

  function onlyValue(runs, metric) {
    const values = runs.flatMap((run) => known(column(run, metric)));
    return values.length > 1 && values.every((value) => value === values[0]) ? values[0] : null;
  }

  // The lines of a panel. `half`: steps to each side over which is averaged, 0 for none. `band`: the runs are seeds,
  // drawn as their mean with a band from the lowest to the highest.
  // A line is {metric, run, x, step, raw, smooth, low, high}; `smooth` is null where nothing is smoothed.
  function lines(panel, runs, { axis = "step", half = 0, band = false } = {}) {
    return panel.metrics.flatMap((metric) => {
      const one = runs.map((run) => lineOf(run, metric, axis)).filter((line) => line.x.length);
      const shown = band && one.length > 1 ? [meanOf(one)] : one;
      return shown.map((line) => ({ ...line, smooth: smoothed(line, metric, half) }));
    });
  }

  function lineOf(run, metric, axis) {
    const { step } = run.series;
    const at = run.series[AXES[axis].of];
    const values = column(run, metric);
    const rows = step.map((_, i) => i).filter((i) => values[i] !== null && values[i] !== undefined);
    const pick = (from) => rows.map((i) => from[i] ?? null);
    const [low, high] = [LOW, HIGH].map((end) => column(run, metric + end));
    const ends = low.length && high.length && metric.startsWith("held_out/");
    return {
      metric,
      run,
      x: pick(at),
      step: pick(step),
      raw: pick(values),
      low: ends ? pick(low) : null,
      high: ends ? pick(high) : null,
    };
  }

  // The mean over seeds at the steps that all of them have, with the lowest and the highest.
  function meanOf(all) {
    const places = all.map((line) => new Map(line.step.map((step, i) => [step, i])));
    const step = all[0].step.filter((one) => places.every((place) => place.has(one)));
    const across = (of) => step.map((one) => all.map((line, i) => of(line)[places[i].get(one)]));
    const mean = (numbers) => numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
    const values = across((line) => line.raw);
    return {
      metric: all[0].metric,
      run: null,
      runs: all.length,
      x: across((line) => line.x).map(mean),
      step,
      raw: values.map(mean),
      low: values.map((numbers) => Math.min(...numbers)),
      high: values.map((numbers) => Math.max(...numbers)),
    };
  }

  // Held-out measures are few, and have their own intervals: they are shown as they are.
  function smoothed(line, metric, half) {
    return half > 0 && !metric.startsWith("held_out/") ? smooth(line.step, line.raw, half) : null;
  }

  // The mean over the steps within `half` to each side, towards the ends a third of that: a wide window that is cut on
  // one side bends a rising curve, and one that is too narrow shows the noise.
  function smooth(steps, values, half) {
    const sums = [0];
    for (const value of values) sums.push(sums[sums.length - 1] + value);
    let first = 0;
    let last = 0;
    return steps.map((step) => {
      const reach = Math.max(Math.floor(half / 3), Math.min(half, step - steps[0], steps[steps.length - 1] - step));
      // The window's ends never go back: step ± reach both grow with the step.
      while (steps[first] < step - reach) first += 1;
      while (last + 1 < steps.length && steps[last + 1] <= step + reach) last += 1;
      return (sums[last + 1] - sums[first]) / (last + 1 - first);
    });
  }

  // pass@k and maj@k over k of a run: before, now and best.
  function overK(run) {
    return run.evaluations.flatMap((evaluation) =>
      ["pass", "maj"].flatMap((kind) => {
        const estimates = evaluation[kind];
        if (!estimates) return [];
        const rows = evaluation.k.map((_, i) => i).filter((i) => estimates[i]);
        const pick = (key) => rows.map((i) => estimates[i][key]);
        return [
          {
            metric: `${kind}@k`,
            label: evaluation.label,
            evaluation,
            x: rows.map((i) => evaluation.k[i]),
            raw: pick("mean"),
            low: pick("low"),
            high: pick("high"),
          },
        ];
      }),
    );
  }

  // Where in a line the value at or next to `x` is, the last one for null; null for an empty line.
  function nearest(line, x) {
    if (!line.x.length) return null;
    if (x === null) return line.x.length - 1;
    let low = 0;
    let high = line.x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (line.x[middle] <= x) low = middle;
      else high = middle;
    }
    return Math.abs(line.x[high] - x) < Math.abs(line.x[low] - x) ? high : low;
  }

  return { AXES, info, column, groups, metrics, lines, smooth, overK, nearest };
})();
