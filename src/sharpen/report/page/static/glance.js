"use strict";
// The overview: what was trained and how, whether it is better, what is wrong, what it took, what it was made from.
(() => {
  const { el, svg, text, prose, number, percent, duration, short } = sharpen.dom;
  const MARKS = { problem: "▲ problem", warning: "△ warning", note: "● note" };
  const PART_COLOURS = ["--series-1", "--series-5", "--series-3", "--series-4"];

  const value = (measure, x) => (measure.share ? percent(x) : number(x));

  function interval(measure, estimate) {
    if (estimate === null) return "–";
    const shown = value(measure, estimate.mean);
    if (estimate.low === null) return shown;
    const [low, high] = [estimate.low, estimate.high].map((x) => value(measure, x).replace(" %", ""));
    return [shown, " ", el("span", { class: "soft small" }, `[${low}, ${high}]`)];
  }

  // Whether the best evaluation is another than the last one.
  const ownBest = (measure) => Boolean(measure.best && measure.best.step !== measure.now?.step);

  // Before, now and best as points with their intervals, on one scale of the measure.
  function dots(measure) {
    const there = [
      ["before", measure.before, 9],
      ["now", measure.now, 19],
      ["best", ownBest(measure) ? measure.best : null, 29],
    ].filter(([, estimate]) => estimate);
    const ends = there.flatMap(([, e]) => [e.low ?? e.mean, e.high ?? e.mean]);
    let [least, most] = measure.share ? [0, 1] : [Math.min(...ends), Math.max(...ends)];
    if (least === most) [least, most] = [least - 1, most + 1];
    const x = (v) => 6 + (288 * (v - least)) / (most - least);
    const told = there.map(([name, e]) => `${name} ${value(measure, e.mean)}`).join(", ");
    return svg(
      "svg",
      { class: "measure-plot", viewBox: "0 0 300 34", role: "img", "aria-label": told, preserveAspectRatio: "none" },
      svg("line", { x1: 6, x2: 294, y1: 33, y2: 33, stroke: "var(--line)" }),
      there.flatMap(([name, e, y]) => {
        const colour = name === "before" ? "var(--soft)" : "var(--accent)";
        return [
          e.low === null ? null : svg("line", { x1: x(e.low), x2: x(e.high), y1: y, y2: y, stroke: colour, "stroke-width": 2 }),
          svg(
            "circle",
            { cx: x(e.mean), cy: y, r: 4, fill: name === "now" ? colour : "var(--card)", stroke: colour, "stroke-width": 2 },
            svg("title", {}, `${name}: ${value(measure, e.mean)}`),
          ),
        ];
      }),
    );
  }

  function measures(run) {
    const all = run.glance.measures;
    if (!all.length) {
      return el("p", { class: "soft" }, prose("Nothing was measured on held-out prompts: set `data.held_out`, or `evaluation.every`."));
    }
    const moved = all.some((measure) => measure.now);
    const best = all.some(ownBest);
    const nowIsBest = all.some((measure) => measure.best) && !best;
    const step = (which) => all.find((measure) => measure[which])?.[which].step;
    const head = (name, which) => el("th", { class: "number" }, `${name}, step ${step(which)}`);
    return el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "measures" },
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            el("th", {}, "held-out"),
            head("before", "before"),
            moved ? head(nowIsBest ? "now and best" : "now", "now") : null,
            best ? head("best", "best") : null,
            moved ? el("th", { class: "number" }, "change") : null,
            moved ? el("th", {}, "") : null,
            el("th", {}, best ? "before ○, now ●, best ○" : "before ○, now ●"),
          ),
        ),
        el(
          "tbody",
          {},
          all.map((measure) =>
            el(
              "tr",
              {},
              el("td", {}, el("button", { class: "quiet", type: "button", on: { click: () => sharpen.go("curves", { metric: `held_out/${measure.name}` }) } }, text(measure.name))),
              el("td", { class: "number" }, interval(measure, measure.before)),
              moved ? el("td", { class: "number" }, interval(measure, measure.now)) : null,
              best ? el("td", { class: "number" }, interval(measure, measure.best)) : null,
              moved ? el("td", { class: "number" }, change(measure)) : null,
              moved ? el("td", {}, el("span", { class: `verdict ${measure.verdict ?? ""}` }, measure.verdict ?? "")) : null,
              el("td", {}, dots(measure)),
            ),
          ),
        ),
      ),
      el("p", { class: "soft small" }, "In brackets: 95 % intervals over prompts. “Better” and “worse” only where the interval of the change on the same prompts leaves out 0."),
    );
  }

  function change(measure) {
    const plus = (x) => (x > 0 ? "+" : "") + value(measure, x);
    if (measure.change) {
      const { mean, low, high } = measure.change;
      const shown = plus(mean);
      return low === null ? shown : [shown, " ", el("span", { class: "soft small" }, `[${[low, high].map((x) => plus(x).replace(" %", "")).join(", ")}]`)];
    }
    return measure.before && measure.now ? plus(measure.now.mean - measure.before.mean) : "–";
  }

  function findings(run) {
    if (!run.findings.length) {
      return el("p", { class: "soft" }, "Nothing: no figure of this run is out of the range in which healthy runs are.");
    }
    const order = ["problem", "warning", "note"];
    const sorted = [...run.findings].sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
    return sorted.map((finding) =>
      el(
        "div",
        { class: `finding ${finding.severity}`, dataset: { finding: finding.id } },
        el("span", { class: "mark small" }, MARKS[finding.severity]),
        el("h3", {}, prose(finding.title)),
        el("p", {}, prose(finding.evidence), el("span", { class: "soft small" }, `  (steps ${finding.steps[0]} to ${finding.steps[1]})`)),
        el(
          "div",
          { class: "advice" },
          prose(finding.advice),
          el(
            "div",
            { class: "links small" },
            finding.metrics.map((metric) =>
              el("button", { class: "quiet", type: "button", on: { click: () => sharpen.go("curves", { metric }) } }, text(metric)),
            ),
            run.steps.training.length
              ? el(
                  "button",
                  { class: "quiet", type: "button", on: { click: () => sharpen.go("rollouts", { step: nearest(run.steps.training, finding.steps[1]) }) } },
                  "rollouts there",
                )
              : null,
          ),
        ),
      ),
    );
  }

  function nearest(steps, step) {
    return steps.reduce((best, one) => (Math.abs(one - step) < Math.abs(best - step) ? one : best), steps[0]);
  }

  function sentence(run) {
    const { sentence, paper } = run.glance;
    if (!sentence) return null;
    const parts = ["source", "reward", "advantage", "loss"];
    // Of a function its name; where it is defined stands below, in what the run was made from.
    const own = Object.fromEntries(run.glance.made_from).reward?.split(", ").map((name) => name.split(":").pop()).join(", ");
    return [
      el(
        "div",
        { class: "sentence" },
        parts.flatMap((part, i) => [
          i ? el("div", { class: "times", "aria-hidden": "true" }, "×") : null,
          el("div", {}, el("div", { class: "part" }, part), text(part === "reward" && own ? own : sentence[part])),
        ]),
      ),
      paper ? el("p", { class: "soft small" }, text(paper)) : null,
    ];
  }

  function took(run) {
    const { time, tokens, duration_s } = run.glance;
    const whole = time.reduce((sum, part) => sum + part.seconds, 0) || 1;
    const rest = Math.max(0, duration_s - whole);
    const parts = rest > 0.01 * duration_s ? [...time, { part: "other", seconds: rest }] : time;
    const colour = (i) => `var(${PART_COLOURS[i] ?? "--line"})`;
    return [
      el(
        "div",
        { class: "shares", role: "img", "aria-label": parts.map((p) => `${p.part} ${duration(p.seconds)}`).join(", ") },
        parts.map((part, i) => el("div", { style: { flex: String(part.seconds), background: colour(i) } })),
      ),
      el(
        "dl",
        {},
        el("dt", {}, "all"),
        el("dd", {}, duration(duration_s)),
        parts.flatMap((part, i) => [
          el("dt", {}, el("span", { class: "swatch", style: { background: colour(i) } }), part.part),
          el("dd", {}, `${duration(part.seconds)}, ${percent(part.seconds / (duration_s || 1), 0)}`),
        ]),
        tokens.rollout === null ? null : [el("dt", {}, "tokens drawn"), el("dd", {}, number(tokens.rollout))],
        tokens.training === null ? null : [el("dt", {}, "tokens computed in training"), el("dd", {}, number(tokens.training))],
      ),
    ];
  }

  function madeFrom(run) {
    const { glance } = run;
    const parameters = glance.model.parameters === null ? null : `${number(glance.model.parameters)}${glance.model.lora ? ", with LoRA" : ""}`;
    const entries = [
      ...glance.made_from,
      parameters ? ["parameters", parameters] : null,
      glance.started ? ["started", glance.started] : null,
      ["folder", run.path],
    ].filter(Boolean);
    return [
      el("dl", {}, entries.flatMap(([label, shown]) => [el("dt", {}, label), el("dd", {}, text(short(shown, 400)))])),
      glance.changes.length
        ? [el("h3", {}, "Changed while it was stopped"), el("ul", {}, glance.changes.map((change) => el("li", {}, text(change))))]
        : null,
      el("details", {}, el("summary", {}, "the recipe"), el("pre", { tabindex: 0 }, text(glance.recipe))),
    ];
  }

  function comparison() {
    const runs = sharpen.data.page.runs;
    if (runs.length < 2) return null;
    const names = [...new Set(runs.flatMap((run) => run.glance.measures.map((measure) => measure.name)))];
    return el(
      "section",
      { class: "card" },
      el("h2", {}, "The runs"),
      el(
        "div",
        { class: "scroll" },
        el(
          "table",
          {},
          el("thead", {}, el("tr", {}, el("th", {}, "run"), el("th", {}, "method"), el("th", { class: "number" }, "step"), names.map((name) => el("th", { class: "number" }, text(name))))),
          el(
            "tbody",
            {},
            runs.map((run) =>
              el(
                "tr",
                {},
                el("td", {}, el("button", { class: "quiet", type: "button", on: { click: () => sharpen.go("glance", { run: run.id }) } }, text(run.name))),
                el("td", {}, text(run.glance.method)),
                el("td", { class: "number" }, `${run.glance.step} of ${run.glance.steps}`),
                names.map((name) => {
                  const measure = run.glance.measures.find((one) => one.name === name);
                  return el("td", { class: "number" }, measure ? interval(measure, measure.now ?? measure.before) : "–");
                }),
              ),
            ),
          ),
        ),
      ),
    );
  }

  let place = null;
  let now = null;

  function show(root, state) {
    place = root;
    now = state;
    const run = sharpen.data.run(state.run);
    const section = (title, ...content) => el("section", { class: "card" }, el("h2", {}, title), ...content);
    root.replaceChildren(
      el(
        "div",
        { class: "overview" },
        el("section", { class: "card" }, el("p", { class: "headline" }, text(run.glance.headline)), sentence(run)),
        comparison(),
        section("Is it better?", measures(run)),
        section("What is wrong?", findings(run)),
        el("div", { class: "grid" }, section("What it took", took(run)), section("What it was made from", madeFrom(run))),
      ),
    );
  }

  function update() {
    const open = place.querySelector("details")?.open;
    show(place, now);
    if (open) place.querySelector("details").open = true;
  }

  sharpen.view({ id: "glance", title: "Overview", order: 10, show, update });
})();
