"use strict";
// The view of the curves: a panel for each thing that is measured, all of one kind on one x axis.
(() => {
  const { el, text } = sharpen.dom;
  const { panels: find, chart } = sharpen;
  const SYNC = "curves";
  const HEIGHT = 190;

  // What the user chose lasts while the page is open, also when another view is shown.
  const chosen = { axis: "step", half: null, band: true, off: new Set(), log: new Set(), tables: new Set(), zoom: null };
  let view = null;

  function show(root, state) {
    const runs = sharpen.data.page.runs;
    view = { root, state, cards: [], observer: new IntersectionObserver(seen, { rootMargin: "300px" }) };
    if (chosen.half === null) chosen.half = defaultHalf(runs);
    view.toolbar = el("div", { class: "toolbar curves-bar" });
    view.body = el("div", { class: "curves" });
    root.append(view.toolbar, view.body);
    toolbar();
    // Below the page's own bar, whose height depends on the width.
    view.toolbar.style.top = `${document.querySelector(".bar")?.offsetHeight ?? 0}px`;
    build();
    if (state.metric) focusMetric(state.metric);
  }

  function hide() {
    view.observer.disconnect();
    for (const card of view.cards) erase(card);
    view = null;
  }

  const defaultHalf = (runs) => {
    const most = Math.max(0, ...runs.map((run) => run.series.step.at(-1) ?? 0));
    return most < 40 ? 0 : Math.max(1, Math.round(most / 40));
  };

  const about = (metric) => find.info(sharpen.data.page.catalogue, metric);
  const shownRuns = () => sharpen.data.page.runs.filter((run) => !chosen.off.has(run.id));
  const isBand = () => sharpen.data.page.seeds && chosen.band && sharpen.data.page.runs.length > 1;
  const options = () => ({ axis: chosen.axis, half: chosen.half, band: isBand() });

  // The bar: axis, smoothing, runs
  function toolbar() {
    const { page } = sharpen.data;
    const longest = Math.max(1, ...page.runs.map((run) => run.series.step.at(-1) ?? 1));
    const said = el("output", { class: "small soft" });
    const say = () => (said.textContent = chosen.half ? `mean of ±${chosen.half} step${chosen.half > 1 ? "s" : ""}` : "off");
    const slider = el("input", {
      type: "range", min: 0, max: Math.max(1, Math.ceil(longest / 8)), value: chosen.half, id: "smoothing",
      on: { input: () => ((chosen.half = Number(slider.value)), say(), redraw()) },
    });
    say();
    view.reset = el("button", { type: "button", class: "quiet", on: { click: () => zoom(null) } }, "Reset zoom");
    view.reset.hidden = chosen.zoom === null;
    const parts = [
      el("div", { class: "segments", role: "group", "aria-label": "Horizontal axis" },
        Object.entries(find.AXES).map(([name, axis]) =>
          el("button", { type: "button", "aria-pressed": String(chosen.axis === name), dataset: { axis: name }, on: { click: () => pickAxis(name) } }, axis.title))),
      el("label", { class: "smoothing" }, "Smoothing ", slider, " ", said),
      page.seeds && page.runs.length > 1 ? bandBox() : null,
      page.runs.length > 1 && !isBand() ? legend(page.runs) : null,
      view.reset,
    ];
    view.toolbar.replaceChildren(...parts.filter(Boolean));
  }

  function pickAxis(name) {
    chosen.axis = name;
    chosen.zoom = null;
    toolbar();
    redraw();
    view.toolbar.querySelector(`[data-axis="${name}"]`).focus();
  }

  function bandBox() {
    const box = el("input", { type: "checkbox", checked: chosen.band, on: { change: () => ((chosen.band = box.checked), toolbar(), rebuild()) } });
    return el("label", { class: "check" }, box, " seeds as mean and range");
  }

  function legend(runs) {
    return el("div", { class: "legend", role: "group", "aria-label": "Runs" },
      runs.map((run, place) => {
        const box = el("button", {
          type: "button", class: "run-toggle", "aria-pressed": String(!chosen.off.has(run.id)),
          on: {
            click: () => {
              if (!chosen.off.delete(run.id)) chosen.off.add(run.id);
              box.setAttribute("aria-pressed", String(!chosen.off.has(run.id)));
              rebuild();
            },
          },
        }, sharpen.card.swatch({ place }), text(sharpen.dom.short(run.name, 40)));
        return box;
      }));
  }

  // The panels
  function build() {
    const { page } = sharpen.data;
    const groups = find.groups(page.runs, page.catalogue);
    view.signature = signature(groups);
    view.body.replaceChildren();
    const run = sharpen.data.run(view.state.run);
    const over = find.overK(run).some((line) => line.x.length > 1);
    if (!groups.length) view.body.append(el("p", { class: "empty" }, "No metrics yet: the first step is still going on."));
    for (const group of groups) {
      const cards = group.panels.map(metricCard);
      if (group.title === "Held-out" && over) cards.splice(Math.min(1, cards.length), 0, overKCard(run));
      view.body.append(
        el("section", { class: "curve-group", "aria-label": group.title },
          el("h2", {}, group.title),
          el("div", { class: "curve-grid" }, cards.map((card) => card.root)),
          group.flat.length ? flat(group.flat) : null),
      );
    }
  }

  const signature = (groups) => JSON.stringify(groups.map((g) => [g.title, g.panels.map((p) => p.metrics), g.flat]));

  function flat(all) {
    return el("p", { class: "soft small flat", tabindex: "-1", dataset: { metrics: all.map(({ metric }) => metric).join("\n") } }, "The same at every step: ",
      all.flatMap(({ metric, value }, i) => [i ? ", " : "", text(about(metric).title), ` ${chart.shown(about(metric), value)}`]), ".");
  }

  function metricCard(panel) {
    const lines = () => dressed(panel, find.lines(panel, shownRuns(), options()));
    const card = newCard(panel.title, panel.info, lines, panel.metrics);
    card.axis = () => chosen.axis;
    return card;
  }

  // Colours and names: of runs where there are several, of metrics where there are several in one panel.
  function dressed(panel, lines) {
    const { runs } = sharpen.data.page;
    const many = runs.length > 1 && !isBand();
    return lines.map((line) => {
      const place = panel.metrics.indexOf(line.metric);
      const title = panel.metrics.length > 1 ? label(about(line.metric).title, panel) : "";
      const seeds = line.run === null ? `mean of ${line.runs} seeds` : "";
      return {
        ...line,
        place: many ? runs.indexOf(line.run) : place,
        dash: many ? place : 0,
        label: [title, many ? sharpen.dom.short(line.run.name, 24) : seeds].filter(Boolean).join(" · "),
      };
    });
  }

  // "Reward: style" in the panel of the parts of the reward is "style".
  const label = (title, panel) => {
    const end = title.split(/: |, /).pop();
    return panel.metrics.length > 1 && end.length > 0 ? end : title;
  };

  function overKCard(run) {
    const info = {
      share: true,
      unit: "share",
      direction: "up",
      meaning: "chance that one of k completions is right (pass@k), and that the most frequent of k answers is right (maj@k), on held-out prompts",
      normal: "the left end of pass@k rises, the right end stays: what was in reach becomes what the model says",
    };
    const variables = { before: "--soft", now: "--series-1", best: "--series-3" };
    const lines = () => {
      const found = find.overK(run);
      const now = found.find((line) => line.label === "now")?.evaluation.step;
      return found
        .filter((line) => line.label !== "best" || line.evaluation.step !== now)
        .map((line) => ({ ...line, variable: variables[line.label], dash: line.metric === "maj@k" ? 1 : 0, label: `${line.metric} ${line.label}` }));
    };
    const card = newCard("pass@k and maj@k over k", info, lines, []);
    return Object.assign(card, { axis: () => "k", logX: 2, alone: true });
  }

  function newCard(title, info, lines, metrics) {
    const infos = metrics.map(about);
    const card = sharpen.card.create(title, info, infos.length ? infos : [info]);
    Object.assign(card, { lines, metrics, chart: null, near: false });
    card.root.addEventListener("keydown", (event) => keyed(card, event));
    tools(card);
    view.cards.push(card);
    view.observer.observe(card.root);
    return card;
  }

  function tools(card) {
    sharpen.card.tools(card, [
      card.metrics.length && positive(card) ? ["log", "logarithmic scale", chosen.log, () => draw(card)] : null,
      ["table", "numbers as a table", chosen.tables, () => sharpen.card.numbers(card, chosen.tables.has(card.title))],
    ].filter(Boolean));
  }

  const positive = (card) => card.lines().every((line) => [...line.raw, ...(line.low ?? [])].every((value) => value === null || value > 0));

  // Drawing: only what is on the screen, or near it
  function seen(entries) {
    for (const entry of entries) {
      const card = view?.cards.find((one) => one.root === entry.target);
      if (!card) continue;
      card.near = entry.isIntersecting;
      if (card.near && card.stale !== false) draw(card);
    }
  }

  function draw(card) {
    card.stale = true;
    if (!card.near || !view) return;
    card.stale = false;
    const lines = card.lines().filter((line) => line.x.length);
    card.drawn = lines;
    sharpen.card.numbers(card, chosen.tables.has(card.title));
    // The same lines with other numbers: the chart stays, and with it the cursor.
    const kind = JSON.stringify([card.axis(), chosen.log.has(card.title), lines.map((line) => [line.metric, line.label, !!line.smooth, !!line.low])]);
    if (card.chart && card.kind === kind) return renew(card);
    card.kind = kind;
    erase(card);
    sharpen.card.read(card, null);
    if (!lines.length) return card.place.replaceChildren(el("p", { class: "empty small" }, "none of the runs shown has it"));
    card.chart = chart.draw(card.place, lines, {
      info: card.info,
      axis: card.axis(),
      ticks: card.alone ? (k) => String(k) : null,
      log: chosen.log.has(card.title),
      logX: card.logX ?? 0,
      height: HEIGHT,
      sync: card.alone ? null : SYNC,
      onCursor: (x) => sharpen.card.read(card, x),
      onClick: card.alone ? null : (x) => rollouts(card, x),
      onZoom: card.alone ? null : zoom,
    });
    if (chosen.zoom && !card.alone) card.chart.setScale("x", chosen.zoom);
    card.sizes = new ResizeObserver(() => card.chart?.setSize({ width: Math.max(120, card.place.clientWidth), height: HEIGHT }));
    card.sizes.observe(card.place);
  }

  function erase(card) {
    card.sizes?.disconnect();
    card.chart?.destroy();
    card.chart = null;
    card.place.replaceChildren();
  }

  function renew(card) {
    const { chart: drawn } = card;
    const zoomed = chosen.zoom && !card.alone;
    drawn.setData(chart.table(card.drawn), !zoomed);
    if (zoomed) drawn.setScale("x", chosen.zoom);
    const at = drawn.cursor.idx;
    sharpen.card.read(card, at === null || at === undefined ? null : drawn.data[0][at]);
  }

  const redraw = () => view.cards.forEach(draw);

  // In other colours
  function repaint() {
    for (const card of view.cards) erase(card);
    redraw();
  }

  function rebuild() {
    for (const card of view.cards) tools(card);
    redraw();
  }

  function zoom(to) {
    chosen.zoom = to;
    redraw();
    view.reset.hidden = to === null;
  }

  // Moving about
  function keyed(card, event) {
    if (event.target !== card.root || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" && !card.alone && card.chart) {
      const at = card.chart.cursor.idx;
      if (at !== null && at !== undefined) rollouts(card, card.chart.data[0][at]);
      return;
    }
    if (card.chart && chart.move(card.chart, event.key) !== null) event.preventDefault();
  }

  // The rollouts of the step that is nearest to the place of the click, of the run whose line is nearest.
  function rollouts(card, x) {
    const near = card.drawn.map((line) => ({ line, i: find.nearest(line, x) })).filter(({ i }) => i !== null);
    near.sort((a, b) => Math.abs(a.line.x[a.i] - x) - Math.abs(b.line.x[b.i] - x));
    if (!near.length) return;
    const { line, i } = near[0];
    const run = line.run ?? sharpen.data.run(view.state.run);
    const steps = run.steps.training.length ? run.steps.training : run.steps.held_out;
    if (!steps.length) return;
    const step = steps.reduce((best, one) => (Math.abs(one - line.step[i]) < Math.abs(best - line.step[i]) ? one : best), steps[0]);
    sharpen.go("rollouts", { run: run.id, step });
  }

  function focusMetric(metric) {
    const drawn = view.cards.find((one) => one.metrics.includes(metric))?.root;
    const place = drawn ?? [...view.body.querySelectorAll(".flat")].find((one) => one.dataset.metrics.split("\n").includes(metric));
    place?.scrollIntoView({ block: "center" });
    place?.focus();
  }

  function update() {
    const { page } = sharpen.data;
    if (signature(find.groups(page.runs, page.catalogue)) !== view.signature) {
      const focused = document.activeElement.closest("[data-panel]")?.dataset.panel;
      const top = scrollY;
      for (const card of view.cards) erase(card);
      view.observer.disconnect();
      view.cards = [];
      build();
      // A metric that is new moves nobody away from where they were.
      scrollTo(0, top);
      view.cards.find((card) => card.title === focused)?.root.focus({ preventScroll: true });
    } else {
      redraw();
    }
  }

  sharpen.view({ id: "curves", title: "Curves", order: 30, show, hide, update });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view && repaint());
})();
