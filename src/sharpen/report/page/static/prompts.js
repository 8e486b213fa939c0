"use strict";
// How each prompt moved: which got worse, which better, with a way to both of its steps.
(() => {
  const { el, prose, svg, text, number } = sharpen.dom;
  const ORDERS = {
    fell: ["fell most", (a, b) => a.change - b.change],
    rose: ["rose most", (a, b) => b.change - a.change],
    low: ["lowest now", (a, b) => a.last.mean - b.last.mean],
    high: ["highest now", (a, b) => b.last.mean - a.last.mean],
  };
  const PORTION = 60; // rows that are laid out together

  let root = null;
  let state = null;

  async function show(place, asked) {
    root = place;
    state = { order: "fell", ...asked };
    root.replaceChildren(el("p", { class: "soft" }, "loading …"));
    const run = sharpen.data.run(state.run);
    const chunk = await sharpen.data.chunk(run.id, "prompts");
    if (!root.isConnected) return;
    const kinds = ["held_out", "training"].filter((kind) => chunk[kind]);
    if (!kinds.length) {
      root.replaceChildren(
        el("p", { class: "empty" }, prose("No prompt of this run was answered at two steps: evaluations with `data.held_out` and `evaluation.every` answer the same ones again.")),
      );
      return;
    }
    if (!kinds.includes(state.kind)) state.kind = kinds[0];
    draw(run, chunk[state.kind], kinds);
  }

  function change(params) {
    state = { ...state, ...params };
    const { run, kind, order, search } = state;
    sharpen.keep({ run, kind, order, search });
    show(root, state);
  }

  function draw(run, found, kinds) {
    const hits = state.search?.toLowerCase();
    const rows = found.rows.filter((row) => !hits || row.prompt.toLowerCase().includes(hits) || row.prompt_id.toLowerCase().includes(hits));
    rows.sort(ORDERS[state.order]?.[1] ?? ORDERS.fell[1]);
    const fell = found.rows.filter((row) => row.change < 0).length;
    const rose = found.rows.filter((row) => row.change > 0).length;
    const body = el("tbody", {});
    const more = el("button", { type: "button", class: "quiet" });
    let shown = 0;
    const next = () => {
      const portion = rows.slice(shown, shown + PORTION);
      body.append(...portion.map((row) => line(run, row, hits)));
      shown += portion.length;
      more.textContent = `show ${Math.min(PORTION, rows.length - shown)} more of ${rows.length}`;
      more.hidden = shown >= rows.length;
    };
    more.addEventListener("click", next);
    next();
    root.replaceChildren(
      toolbar(kinds),
      el(
        "section",
        { class: "card" },
        el("h2", {}, `${fell} fell, ${rose} rose, ${found.rows.length - fell - rose} stayed`),
        el(
          "p",
          { class: "soft small" },
          `Mean reward of each prompt at its first and its last step, between step ${found.steps[0]} and step ${found.steps[1]}.`,
          found.left_out ? ` ${found.left_out} prompts that moved less are left out.` : "",
          " A few answers per prompt vary by chance: look at those that moved most, and at their completions.",
        ),
        rows.length
          ? el(
              "div",
              { class: "scroll" },
              el(
                "table",
                { class: "prompts" },
                el("thead", {}, el("tr", {}, ["prompt", "first", "last", "change", ""].map((name, i) => el("th", { class: i > 0 && i < 4 ? "number" : "" }, name)))),
                body,
              ),
            )
          : el("p", { class: "empty" }, "No prompt is like that."),
        more,
      ),
    );
  }

  function toolbar(kinds) {
    const select = (label, options, chosen, apply) => {
      const made = el("select", { "aria-label": label, on: { change: () => apply(made.value) } }, options.map(([value, shown]) => el("option", { value, selected: value === chosen }, shown)));
      return made;
    };
    const search = el("input", { type: "search", placeholder: "search the prompts", "aria-label": "Search", value: state.search ?? "" });
    search.addEventListener("change", () => change({ search: search.value }));
    return el(
      "div",
      { class: "toolbar" },
      select("Which prompts", kinds.map((kind) => [kind, kind === "held_out" ? "held-out prompts" : "training prompts"]), state.kind, (kind) => change({ kind })),
      select("Order", Object.entries(ORDERS).map(([name, [label]]) => [name, label]), state.order, (order) => change({ order })),
      search,
    );
  }

  function line(run, row, hits) {
    const at = (visit) => [number(visit.mean), el("span", { class: "soft small" }, ` step ${visit.step}, n ${visit.n}`)];
    return el(
      "tr",
      {},
      el("td", {}, row.source ? el("span", { class: "tag" }, text(row.source)) : null, " ", text(row.prompt, { hits, long: 300 })),
      el("td", { class: "number" }, at(row.first)),
      el("td", { class: "number" }, at(row.last)),
      el("td", { class: `number ${row.change < 0 ? "fell" : row.change > 0 ? "rose" : ""}` }, arrow(row.change), " ", (row.change > 0 ? "+" : "") + number(row.change)),
      el(
        "td",
        {},
        el(
          "button",
          {
            type: "button",
            class: "quiet small",
            on: { click: () => sharpen.go("rollouts", { kind: state.kind, prompt: row.prompt_id, step: row.first.step, with: row.last.step }) },
          },
          "both side by side",
        ),
      ),
    );
  }

  function arrow(change) {
    if (change === 0) return "";
    const points = change > 0 ? "2,9 6,2 10,9" : "2,3 6,10 10,3";
    return svg("svg", { class: "arrow", width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("polygon", { points, fill: "currentcolor" }));
  }

  sharpen.view({ id: "prompts", title: "Prompts", order: 60, show });
})();
