"use strict";
// The view of the metrics: what each one is, and its first, latest, lowest and highest value in each run.
(() => {
  const { el, svg, text } = sharpen.dom;
  const { shown, colour } = sharpen.chart;
  const BETTER = { up: "↑ better", down: "↓ better", none: "" };
  const WIDTH = 120;
  const HEIGHT = 26;

  const about = (name) => sharpen.panels.info(sharpen.data.page.catalogue, name);

  let search = "";
  let view = null;

  function show(root) {
    const field = el("input", {
      type: "search", placeholder: "Find a metric", "aria-label": "Find a metric", value: search,
      on: { input: () => ((search = field.value), filter()) },
    });
    view = { body: el("div", { class: "scroll card" }), count: el("span", { class: "small soft", "aria-live": "polite" }) };
    root.append(el("div", { class: "toolbar" }, field, view.count), view.body);
    build();
  }

  function build() {
    const { runs, catalogue } = sharpen.data.page;
    const names = sharpen.panels.metrics(runs, catalogue);
    const many = runs.length > 1;
    view.rows = [];
    const bodies = [...Map.groupBy(names, (name) => about(name).group)].map(([group, members]) => {
      const head = el("tr", { class: "group-row" }, el("th", { colspan: many ? 8 : 7, scope: "rowgroup" }, group));
      const body = el("tbody", {}, head);
      for (const name of members) {
        const rows = runs.map((run, place) => runRow(run, place, name, many)).filter(Boolean);
        rows.forEach((row, i) => row.prepend(...(i ? [] : [named(name, rows.length)])));
        rows.forEach((row, i) => i || row.append(meaning(name, rows.length)));
        body.append(...rows);
        view.rows.push({ name, rows, body, head, words: haystack(name) });
      }
      return body;
    });
    const heads = ["metric", ...(many ? ["run"] : []), "", "first", "latest", "lowest", "highest", "what it means"];
    const numeric = new Set(["first", "latest", "lowest", "highest"]);
    view.body.replaceChildren(
      el("table", { class: "metrics-table" },
        el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: numeric.has(head) ? "number" : null }, head)))),
        bodies));
    filter();
  }

  const haystack = (name) => {
    const info = about(name);
    return [name, info.title, info.meaning, info.normal, info.group].join("\n").toLowerCase();
  };

  function named(name, span) {
    const info = about(name);
    return el("th", { scope: "row", rowspan: span },
      el("button", { type: "button", class: "quiet", title: "Its curve", on: { click: () => sharpen.go("curves", { metric: name }) } }, text(info.title)),
      el("div", { class: "small soft" }, el("code", {}, text(name)), [info.unit, BETTER[info.direction]].filter(Boolean).map((words) => ` · ${words}`)));
  }

  function meaning(name, span) {
    const { meaning: what, normal } = about(name);
    return el("td", { class: "meaning small", rowspan: span }, text(what || "a metric of your own"), normal ? el("div", { class: "soft" }, "Normal: ", text(normal)) : null);
  }

  function runRow(run, place, name, many) {
    const info = about(name);
    const values = sharpen.panels.column(run, name).filter((value) => value !== null);
    if (!values.length) return null;
    const cell = (value) => el("td", { class: "number" }, shown(info, value));
    return el("tr", { dataset: { metric: name, run: run.id } },
      many ? el("td", { class: "small" }, text(sharpen.dom.short(run.name, 30))) : null,
      el("td", {}, sparkline(run, name, place)),
      cell(values[0]), cell(values.at(-1)), cell(least(values)), cell(most(values)));
  }

  const least = (values) => values.reduce((a, b) => Math.min(a, b));
  const most = (values) => values.reduce((a, b) => Math.max(a, b));

  function sparkline(run, name, place) {
    const [line] = sharpen.panels.lines({ metrics: [name] }, [run]);
    const [low, high] = [least(line.raw), most(line.raw)];
    const [from, to] = [line.x[0], line.x.at(-1)];
    const x = (value) => 3 + ((WIDTH - 6) * (value - from)) / (to - from || 1);
    const y = (value) => (high === low ? HEIGHT / 2 : HEIGHT - 3 - ((HEIGHT - 6) * (value - low)) / (high - low));
    const points = line.raw.map((value, i) => `${x(line.x[i]).toFixed(1)},${y(value).toFixed(1)}`);
    return svg("svg", { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" },
      svg("polyline", { points: points.join(" "), fill: "none", stroke: colour(place), "stroke-width": 1.4, "stroke-linejoin": "round" }),
      svg("circle", { cx: x(to), cy: y(line.raw.at(-1)), r: 2.2, fill: colour(place) }));
  }

  function filter() {
    const wanted = search.toLowerCase().split(/\s+/).filter(Boolean);
    const shownHeads = new Set();
    let count = 0;
    for (const { rows, words, head } of view.rows) {
      const fits = wanted.every((word) => words.includes(word));
      for (const row of rows) row.hidden = !fits;
      if (fits) {
        shownHeads.add(head);
        count += 1;
      }
    }
    for (const { head } of view.rows) head.hidden = !shownHeads.has(head);
    view.count.textContent = `${count} of ${view.rows.length} metrics`;
  }

  const update = () => build();
  const hide = () => (view = null);

  sharpen.view({ id: "metrics", title: "Metrics", order: 70, show, hide, update });
})();
