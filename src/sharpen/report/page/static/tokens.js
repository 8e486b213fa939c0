"use strict";
// One completion, its tokens coloured by what the training computed for each.
(() => {
  const { el, prose, svg, number, text, pieces, replace } = sharpen.dom;

  // signed: blue above, orange below the middle. Otherwise from pale to full.
  const STREAMS = {
    coefficient: {
      title: "gradient coefficient",
      middle: 0,
      up: "pushed up",
      down: "pushed down",
      about: "−∂loss/∂log π at the first update, divided by the token's weight: how much the method pushes this token up (above 0) or down.",
    },
    advantage: { title: "advantage", middle: 0, up: "better than expected", down: "worse than expected", about: "What the reward means for this token." },
    ratio: { title: "ratio π/π_old", middle: 1, up: "more likely than when drawn", down: "less likely", about: "At the last pass over the step; 1 while the policy is the one that drew it." },
    clipped: { title: "clipped", middle: null, about: "Whether the last pass clipped the token, so that it had no gradient." },
    logprob: { title: "log π", middle: null, reverse: true, unit: "nats", about: "The log-probability of the token in training, at the first update: the darker, the less likely it was." },
    mismatch: { title: "π_old − rollout", middle: 0, unit: "nats", up: "trainer finds it likelier", down: "sampler finds it likelier", about: "The difference of the log-probabilities of trainer and sampler for the same weights: rounding, or an engine that disagrees." },
    kl: { title: "KL to the reference", middle: null, unit: "nats", about: "The token's part of KL(π ‖ π_ref)." },
    entropy: { title: "entropy", middle: null, unit: "nats", about: "Of the distribution that the token was drawn from: where the policy was undecided." },
    value: { title: "value", middle: "mean", up: "above the mean", down: "below the mean", about: "The critic's value of the state before the token." },
    score: { title: "score", middle: "mean", up: "above the mean", down: "below the mean", about: "The reward model's score at the token." },
    step_reward: { title: "step rewards", middle: "mean", up: "above the mean", down: "below the mean", about: "The reward of each step, at its last token." },
    weight: { title: "weight", middle: null, about: "The weight of the token's loss term over the optimizer step, such as 1/(P·G·|o|)." },
  };
  const ALSO = { old_logprob: "log π_old", rollout_logprob: "log π in the rollout", ref_logprob: "log π_ref" };

  let root = null;
  let state = null;
  let tokens = null;
  let cursor = 0;
  let asked = 0; // counts what was asked for: what arrives after something else was is not shown

  async function show(place, params) {
    const turn = (asked += 1);
    root = place;
    state = { stream: "coefficient", ...params };
    const run = sharpen.data.run(state.run);
    const steps = run.steps.tokens;
    if (!steps.length) {
      root.replaceChildren(
        el("p", { class: "empty" }, prose("No step of this run was recorded token by token: `log.tokens_every: 20` in the recipe does that every 20 steps.")),
      );
      return;
    }
    const step = state.step === undefined ? steps[steps.length - 1] : Number(state.step);
    state.step = steps.includes(step) ? step : nearest(steps, step);
    const chunk = await sharpen.data.chunk(run.id, `training/${state.step}`);
    if (turn !== asked) return;
    const rows = chunk.groups.flatMap((group) => group.rows.filter((row) => row.has_tokens).map((row) => ({ ...row, group })));
    const row = rows.find((one) => one.row === Number(state.row)) ?? rows[0];
    if (row === undefined) {
      root.replaceChildren(el("p", { class: "empty" }, "No completion of this step has its tokens."));
      return;
    }
    state.row = row.row;
    const loaded = await sharpen.data.chunk(run.id, `tokens/${state.step}/${state.row}`);
    if (turn !== asked) return;
    tokens = loaded;
    draw(run, rows, row);
  }

  function nearest(steps, step) {
    return steps.reduce((best, one) => (Math.abs(one - step) < Math.abs(best - step) ? one : best), steps[0]);
  }

  function change(params) {
    state = { ...state, ...params };
    sharpen.keep({ run: state.run, step: state.step, row: state.row, stream: state.stream });
    const failed = (error) => root.replaceChildren(el("p", { class: "failure", role: "alert" }, text(error.message)));
    return show(root, state).catch(failed);
  }

  const offered = () => Object.keys(STREAMS).filter((name) => tokens[name]?.some((value) => value !== null));

  function draw(run, rows, row) {
    const streams = offered();
    if (!streams.includes(state.stream)) state.stream = streams[0];
    const scale = scaleOf(state.stream);
    cursor = Math.min(cursor, tokens.texts.length - 1);
    const line = el("div", { class: "tokens", role: "group", tabindex: 0, "aria-label": "Tokens; the arrow keys move from one to the next" });
    line.append(...tokens.texts.flatMap((_, t) => token(t, scale)));
    line.addEventListener("keydown", keys);
    const under = (event) => event.target.closest("[data-t]")?.dataset.t;
    line.addEventListener("pointerover", (event) => under(event) !== undefined && read(Number(under(event))));
    line.addEventListener("click", (event) => under(event) !== undefined && move(Number(under(event))));
    replace(
      root,
      toolbar(run, rows, row, streams),
      el(
        "div",
        { class: "token-page" },
        el(
          "section",
          { class: "card" },
          el("p", { class: "soft small" }, `reward ${number(row.reward)} · ${tokens.texts.length} tokens · step ${state.step}, row ${state.row}`),
          el("div", { class: "prompt soft" }, text(row.group.prompt, { long: 1500 })),
          line,
          legend(scale),
          strip(scale),
        ),
        el("aside", {}, el("section", { class: "card readout", "aria-live": "polite", "aria-label": "The token under the cursor" }), extremes(scale)),
      ),
    );
    move(cursor, false);
  }

  function toolbar(run, rows, row, streams) {
    const steps = run.steps.tokens;
    const select = (label, options, chosen, apply) => {
      const made = el("select", { "aria-label": label, on: { change: () => apply(made.value) } }, options.map(([value, shown]) => el("option", { value, selected: String(value) === String(chosen) }, shown)));
      return made;
    };
    const at = rows.indexOf(row);
    const other = (by) => rows[at + by] && change({ row: rows[at + by].row });
    return el(
      "div",
      { class: "toolbar" },
      select("Colour by", streams.map((name) => [name, STREAMS[name].title]), state.stream, (stream) => change({ stream })),
      select("Step", steps.map((step) => [step, `step ${step}`]), state.step, (step) => change({ step: Number(step), row: undefined })),
      el("button", { type: "button", "aria-label": "Completion before", disabled: at === 0, on: { click: () => other(-1) } }, "←"),
      select(
        "Completion",
        rows.map((one) => [one.row, `${sharpen.dom.short(one.group.prompt.trim().split("\n").pop(), 32)} · ${one.reward === null ? "no reward" : number(one.reward)} · #${one.row}`]),
        state.row,
        (chosen) => change({ row: Number(chosen) }),
      ),
      el("button", { type: "button", "aria-label": "Completion after", disabled: at === rows.length - 1, on: { click: () => other(1) } }, "→"),
      el("button", { type: "button", class: "quiet", on: { click: () => sharpen.go("rollouts", { step: state.step }) } }, "its group"),
    );
  }

  // How a stream's numbers become colours: `of` gives from −1 to 1, or null where there is none.
  function scaleOf(name) {
    const stream = STREAMS[name];
    const values = tokens[name];
    const there = values.filter((value) => value !== null);
    const mean = there.reduce((sum, value) => sum + value, 0) / there.length;
    const middle = stream.middle === "mean" ? mean : stream.middle;
    const sizes = there.map((value) => Math.abs(value - (middle ?? 0))).sort((a, b) => a - b);
    // One far token must not make all others pale.
    const most = sizes[sizes.length - 1];
    const full = sizes[Math.floor(0.98 * (sizes.length - 1))] || most || 1;
    const of = (value) => {
      if (value === null) return null;
      const part = (value - (middle ?? 0)) / full;
      return Math.max(-1, Math.min(1, middle === null ? Math.abs(part) : part));
    };
    return { name, stream, values, middle, full, most, of };
  }

  function token(t, scale) {
    const value = scale.values[t];
    const part = scale.of(value);
    const shown = tokens.texts[t];
    const classes = ["token"];
    if (!tokens.trained[t]) classes.push("untrained");
    if (part === null) classes.push("without");
    else if (scale.middle !== null && part > 0.02) classes.push("up");
    else if (scale.middle !== null && part < -0.02) classes.push("down");
    const options = { class: classes.join(" "), dataset: { t } };
    if (part !== null && part !== 0) {
      const colour = scale.middle === null ? "--series-3" : part > 0 ? "--up" : "--down";
      options.style = { "--tint": `color-mix(in srgb, var(${colour}) ${Math.round(8 + 62 * Math.abs(part))}%, transparent)` };
    }
    const step = tokens.step_reward?.[t];
    return [
      el("span", options, visible(shown)),
      step === null || step === undefined ? null : el("span", { class: "step-end", title: "reward of the step that ends here" }, number(step)),
    ].filter(Boolean);
  }

  // What a token adds is always to be seen: a space, a line break, nothing.
  function visible(shown) {
    if (shown === "") return [el("span", { class: "nothing", title: "part of a character" }, "▏")];
    const nodes = [];
    for (const part of shown.split(/(\n)/)) {
      if (part === "\n") nodes.push(el("span", { class: "break" }, "↵"), "\n");
      else if (part !== "") nodes.push(...pieces(part.replace(/^ +$/, (spaces) => "·".repeat(spaces.length))));
    }
    return nodes;
  }

  function legend(scale) {
    const { stream } = scale;
    const unit = stream.unit ? ` ${stream.unit}` : "";
    const ends =
      scale.middle === null
        ? [["0", ""], [`${number(scale.full)}${unit}`, "full"]]
        : [[`▼ ${number(scale.middle - scale.full)}${unit}, ${stream.down}`, "full-down"], [`${number(scale.middle)}`, ""], [`▲ ${number(scale.middle + scale.full)}${unit}, ${stream.up}`, "full"]];
    return el(
      "div",
      { class: "scale small" },
      el("div", { class: scale.middle === null ? "ramp single" : "ramp", "aria-hidden": "true" }),
      el("div", { class: "ends" }, ends.map(([label]) => el("span", {}, label))),
      el("p", { class: "soft" }, stream.about, scale.most > scale.full * 1.001 ? ` The largest is ${number(scale.most)} from the middle; colours end at the 98th percentile.` : ""),
      el("p", { class: "soft" }, scale.middle === null ? "" : `Underlined twice: ${stream.up}; dotted: ${stream.down}. `, "Grey: not trained on."),
    );
  }

  // The stream over the tokens, as bars from its middle.
  function strip(scale) {
    const count = scale.values.length;
    const there = scale.values.filter((value) => value !== null);
    const middle = scale.middle ?? 0;
    const least = Math.min(middle, ...there);
    const most = Math.max(middle, ...there);
    const y = (value) => 76 - (72 * (value - least)) / (most - least || 1);
    const width = 1000 / count;
    return svg(
      "svg",
      { class: "strip", viewBox: "0 0 1000 80", preserveAspectRatio: "none", role: "img", "aria-label": `${scale.stream.title} of each token`, on: { click: (event) => move(Math.min(count - 1, Math.floor((event.offsetX / event.currentTarget.clientWidth) * count))) } },
      scale.values.map((value, t) =>
        value === null
          ? null
          : svg("rect", {
              x: t * width,
              width: Math.max(width * 0.86, 0.6),
              y: Math.min(y(value), y(middle)),
              height: Math.max(Math.abs(y(value) - y(middle)), 0.8),
              fill: scale.middle === null ? "var(--series-3)" : value >= middle ? "var(--up)" : "var(--down)",
            }),
      ),
      svg("line", { x1: 0, x2: 1000, y1: y(middle), y2: y(middle), stroke: "var(--line)" }),
      svg("line", { class: "cursor", x1: 0, x2: 0, y1: 0, y2: 80, stroke: "var(--ink)" }),
    );
  }

  function extremes(scale) {
    const order = scale.values.map((value, t) => [value, t]).filter(([value]) => value !== null).sort((a, b) => b[0] - a[0]);
    const list = (title, entries) =>
      entries.length
        ? [
            el("h3", {}, title),
            el(
              "ol",
              { class: "extremes" },
              entries.map(([value, t]) =>
                el("li", {}, el("button", { type: "button", class: "quiet", on: { click: () => move(t) } }, el("span", { class: "piece" }, visible(tokens.texts[t])), ` ${number(value)}`)),
              ),
            ),
          ]
        : null;
    const middle = scale.middle ?? -Infinity;
    return el(
      "section",
      { class: "card" },
      list(scale.middle === null ? "Highest" : `Most ${scale.stream.up}`, order.filter(([value]) => value > middle).slice(0, 5)),
      list(scale.middle === null ? "Lowest" : `Most ${scale.stream.down}`, order.filter(([value]) => scale.middle === null || value < middle).slice(-5).reverse()),
    );
  }

  function keys(event) {
    const last = tokens.texts.length - 1;
    const to = { ArrowRight: cursor + 1, ArrowLeft: cursor - 1, ArrowDown: cursor + 20, ArrowUp: cursor - 20, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(Math.max(0, Math.min(last, to)));
  }

  function move(t, look = true) {
    root.querySelector(".token.current")?.classList.remove("current");
    cursor = t;
    const place = root.querySelector(`.token[data-t="${t}"]`);
    place?.classList.add("current");
    if (look) place?.scrollIntoView({ block: "nearest" });
    read(t);
  }

  // The numbers of a token, and where it is in the strip.
  function read(t) {
    const line = root.querySelector(".strip .cursor");
    const x = ((t + 0.5) * 1000) / tokens.texts.length;
    line?.setAttribute("x1", x);
    line?.setAttribute("x2", x);
    const place = root.querySelector(".readout");
    const names = [...Object.keys(STREAMS), ...Object.keys(ALSO)].filter((name) => tokens[name]);
    const shown = (name) => {
      const value = tokens[name][t];
      if (value === null) return "–";
      return name === "clipped" ? (value ? "yes" : "no") : number(value, 4);
    };
    place.replaceChildren(
      el("h3", {}, "token ", String(t + 1), ": ", el("span", { class: "piece" }, visible(tokens.texts[t]))),
      el("p", {}, why(t)),
      el(
        "dl",
        { class: "small" },
        el("dt", {}, "id"),
        el("dd", {}, String(tokens.ids[t])),
        names.flatMap((name) => [el("dt", {}, STREAMS[name]?.title ?? ALSO[name]), el("dd", { dataset: { stream: name } }, shown(name))]),
      ),
    );
  }

  // Why the token was pushed, as far as its numbers say.
  function why(t) {
    if (!tokens.trained[t]) return "Not trained on: the policy did not draw it, or it is masked.";
    const coefficient = tokens.coefficient?.[t];
    if (coefficient === undefined || coefficient === null) return "The loss does not go through this token's log-probability.";
    const advantage = tokens.advantage?.[t];
    if (coefficient === 0) {
      if (advantage === 0) return "Not pushed: its advantage is 0, as where all rewards of a group are equal.";
      return "Not pushed: its gradient is 0, as of a clipped token.";
    }
    const way = coefficient > 0 ? "Pushed up" : "Pushed down";
    if (advantage === undefined || advantage === null) return `${way}.`;
    const rest = coefficient - advantage;
    if (Math.abs(rest) <= 0.01 * Math.abs(advantage)) {
      return `${way}: its advantage is ${number(advantage)}, ${advantage > 0 ? "a better" : "a worse"} completion than its baseline.`;
    }
    return `${way}: its advantage is ${number(advantage)}; ${number(rest)} comes from the other terms (ratio, KL, importance weight).`;
  }

  function hide() {
    asked += 1;
  }

  sharpen.view({ id: "tokens", title: "Tokens", order: 50, show, hide });
})();
