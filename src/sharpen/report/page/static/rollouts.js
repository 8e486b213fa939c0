"use strict";
// The groups of a step: each prompt with its completions side by side, sorted, filtered, searched.
(() => {
  const { el, prose, text, number, replace, short } = sharpen.dom;
  const { one, histogram, dots } = sharpen.completions;
  const SORTS = {
    drawn: ["as drawn", (a, b) => a.row - b.row],
    worst: ["worst first", (a, b) => rank(a) - rank(b)],
    best: ["best first", (a, b) => rank(b) - rank(a)],
    longest: ["longest first", (a, b) => b.tokens - a.tokens],
    shortest: ["shortest first", (a, b) => a.tokens - b.tokens],
  };
  // What each is called, whether it keeps a row, and whether it is of held-out completions alone.
  const FILTERS = {
    failed: ["reward failed", (row) => row.error !== null],
    refused: ["could not be judged", (row) => row.refused !== null],
    truncated: ["cut off", (row) => row.finish === "length"],
    wrong: ["lowest reward", (row, group) => row.reward !== null && row.reward === group.least],
    right: ["highest reward", (row, group) => row.reward !== null && row.reward === group.most],
    correct: ["answered right", (row) => row.right === true, true],
    incorrect: ["answered wrong", (row) => row.right === false, true],
    spread: ["groups with spread", (row, group) => group.most !== group.least],
    flat: ["groups without spread", (row, group) => group.most === group.least],
  };

  const rank = (row) => (row.reward === null ? -Infinity : row.reward);

  let root = null;
  let state = null;
  let observer = null;

  function show(place, asked) {
    root = place;
    state = { kind: "training", sort: "drawn", ...asked };
    const run = sharpen.data.run(state.run);
    if (!run.steps.training.length && !run.steps.held_out.length) {
      root.replaceChildren(
        el("p", { class: "empty" }, prose("This run wrote no completions: `log.samples_every` says how often it does. A method that learns from data writes them with `log.tokens_every`.")),
      );
      return;
    }
    if (!run.steps[state.kind]?.length) state.kind = run.steps.training.length ? "training" : "held_out";
    const steps = run.steps[state.kind];
    state.step = nearest(steps, state.step === undefined ? steps[steps.length - 1] : Number(state.step));
    const panes = el("div", { class: state.with === undefined ? "panes" : "panes two" });
    if (FILTERS[state.filter]?.[2] && state.kind !== "held_out") state.filter = undefined;
    replace(root, toolbar(run, steps), panes);
    pane(panes, run, state.step);
    if (state.with !== undefined) pane(panes, run, nearest(steps, Number(state.with)));
  }

  function nearest(steps, step) {
    return steps.reduce((best, one) => (Math.abs(one - step) < Math.abs(best - step) ? one : best), steps[0]);
  }

  function change(params) {
    state = { ...state, ...params };
    const { run, kind, step, sort, filter, source, search, prompt } = state;
    sharpen.keep({ run, kind, step, sort, filter, source, search, prompt, with: state.with, view: undefined });
    show(root, state);
  }

  function toolbar(run, steps) {
    const at = steps.indexOf(state.step);
    const option = (value, label, chosen) => el("option", { value, selected: value === chosen }, label);
    const slider = el("input", {
      type: "range",
      min: 0,
      max: steps.length - 1,
      value: at,
      "aria-label": "Step",
      "aria-valuetext": `step ${state.step}`,
      on: { change: () => change({ step: steps[Number(slider.value)] }) },
    });
    const kinds = el(
      "select",
      { "aria-label": "Which completions", on: { change: () => change({ kind: kinds.value, step: undefined, with: undefined, prompt: undefined }) } },
      run.steps.training.length ? option("training", "training", state.kind) : null,
      run.steps.held_out.length ? option("held_out", "held-out", state.kind) : null,
    );
    const sort = el(
      "select",
      { "aria-label": "Order", on: { change: () => change({ sort: sort.value }) } },
      Object.entries(SORTS).map(([name, [label]]) => option(name, label, state.sort)),
    );
    const filter = el(
      "select",
      { "aria-label": "Show", on: { change: () => change({ filter: filter.value }) } },
      option("", "all completions", state.filter ?? ""),
      Object.entries(FILTERS)
        .filter(([, [, , heldOut]]) => !heldOut || state.kind === "held_out")
        .map(([name, [label]]) => option(name, label, state.filter ?? "")),
    );
    const search = el("input", { type: "search", placeholder: "search the texts", "aria-label": "Search", value: state.search ?? "" });
    search.addEventListener("change", () => change({ search: search.value }));
    const left = run.steps.left_out?.[state.kind];
    return el(
      "div",
      { class: "toolbar", on: { keydown: keys } },
      kinds,
      el("button", { type: "button", "aria-label": "Step before", disabled: at === 0, on: { click: () => change({ step: steps[at - 1] }) } }, "←"),
      slider,
      el("button", { type: "button", "aria-label": "Step after", disabled: at === steps.length - 1, on: { click: () => change({ step: steps[at + 1] }) } }, "→"),
      el("strong", { class: "step" }, `step ${state.step}`),
      sort,
      filter,
      sources(run),
      search,
      el("span", { class: "soft small found", "aria-live": "polite" }),
      left ? el("span", { class: "soft small" }, `${left} steps are not in this file; \`sharpen view\` shows all`) : null,
      state.with === undefined ? null : beside(steps),
      state.prompt === undefined
        ? null
        : el("button", { type: "button", class: "quiet", on: { click: () => change({ prompt: undefined, with: undefined }) } }, "all prompts"),
    );
  }

  // A choice among the data sources of a run that has several.
  function sources(run) {
    const names = Object.keys(run.series.values).map((name) => /^source\/(.+)\/prompts$/.exec(name)?.[1]).filter(Boolean);
    if (!names.length) return null;
    const select = el(
      "select",
      { "aria-label": "Source", on: { change: () => change({ source: select.value }) } },
      ["", ...names].map((name) => el("option", { value: name, selected: name === (state.source ?? "") }, name || "all sources")),
    );
    return select;
  }

  // Which step stands beside the one of the slider, and the way back to one.
  function beside(steps) {
    const select = el(
      "select",
      { "aria-label": "Step beside it", on: { change: () => change({ with: Number(select.value) }) } },
      steps.map((step) => el("option", { value: step, selected: step === nearest(steps, Number(state.with)) }, `beside step ${step}`)),
    );
    return [
      select,
      el("button", { type: "button", class: "quiet", on: { click: () => change({ with: undefined, prompt: undefined }) } }, "one step only"),
    ];
  }

  function keys(event) {
    if (event.target.closest("input[type=search], select")) return;
    const steps = sharpen.data.run(state.run).steps[state.kind];
    const to = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!to || event.target.type === "range") return;
    const next = steps[steps.indexOf(state.step) + to];
    if (next !== undefined) change({ step: next });
  }

  async function pane(panes, run, step) {
    const place = el("section", { class: "pane", "aria-label": `step ${step}` }, el("p", { class: "soft" }, "loading …"));
    panes.append(place);
    let chunk;
    try {
      chunk = await sharpen.data.chunk(run.id, `${state.kind}/${step}`);
    } catch (error) {
      place.replaceChildren(el("p", { class: "failure", role: "alert" }, text(error.message)));
      return;
    }
    if (!place.isConnected) return;
    const groups = chosen(chunk.groups.map(withEnds));
    const rows = groups.reduce((sum, group) => sum + group.shown.length, 0);
    const all = chunk.groups.reduce((sum, group) => sum + group.rows.length, 0);
    const found = root.querySelector(".found");
    if (found) found.textContent = rows === all ? `${all} completions of ${groups.length} prompts` : `${rows} of ${all} completions`;
    place.replaceChildren(
      state.with === undefined ? "" : el("h2", {}, `step ${step}`),
      summary(chunk),
      ...(groups.length ? groups.map((group) => lazy(() => card(group, run, step))) : [el("p", { class: "empty" }, nothing(chunk))]),
    );
  }

  function nothing(chunk) {
    if (state.prompt !== undefined) return `This prompt was not drawn at step ${chunk.step}.`;
    return "No completion of this step is like that.";
  }

  function withEnds(group) {
    const rewards = group.rows.map((row) => row.reward).filter((reward) => reward !== null);
    return { ...group, least: Math.min(...rewards), most: Math.max(...rewards), rewards };
  }

  // The groups that are asked for, each with the rows that are, and in the order that is.
  function chosen(groups) {
    const keep = FILTERS[state.filter]?.[1] ?? (() => true);
    const hits = state.search?.toLowerCase();
    const found = [];
    for (const group of groups) {
      if (state.prompt !== undefined && group.prompt_id !== state.prompt) continue;
      if (state.source && group.source !== state.source) continue;
      const inPrompt = hits && group.prompt.toLowerCase().includes(hits);
      const shown = group.rows.filter((row) => keep(row, group) && (!hits || inPrompt || said(row).toLowerCase().includes(hits)));
      if (shown.length) found.push({ ...group, shown: shown.sort(SORTS[state.sort]?.[1] ?? SORTS.drawn[1]) });
    }
    const order = SORTS[state.sort];
    if (order && state.sort !== "drawn") found.sort((a, b) => order[1](a.shown[0], b.shown[0]));
    return found;
  }

  const said = (row) => [row.completion, row.answer, row.error, row.refused, ...(row.messages ?? []).map((message) => message.content)].join("\n");

  // Built when it comes near the screen, and not before.
  function lazy(build) {
    const place = el("div", { class: "lazy group-place" });
    observer ??= new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          observer.unobserve(entry.target);
          entry.target.replaceChildren(entry.target.build());
        }
      },
      { rootMargin: "600px" },
    );
    place.build = build;
    observer.observe(place);
    return place;
  }

  function summary(chunk) {
    const rows = chunk.groups.flatMap((group) => group.rows);
    const rewards = rows.map((row) => row.reward).filter((reward) => reward !== null);
    if (!rewards.length) return el("p", { class: "soft small" }, `${rows.length} completions, none with a reward`);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
    const failed = rows.filter((row) => row.error !== null).length;
    const cut = rows.filter((row) => row.finish === "length").length;
    return el(
      "div",
      { class: "step-summary soft small" },
      histogram(rewards),
      el("span", {}, `mean reward ${number(mean)}, from ${number(Math.min(...rewards))} to ${number(Math.max(...rewards))}`),
      el("span", {}, `${cut} cut off`),
      failed ? el("span", { class: "bad" }, `${failed} rewards failed`) : null,
    );
  }

  function card(group, run, step) {
    const { rewards } = group;
    const mean = rewards.length ? rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length : null;
    return el(
      "article",
      { class: "card group" },
      el(
        "header",
        {},
        el(
          "div",
          { class: "small soft" },
          group.source ? [text(group.source), " · "] : null,
          text(short(group.prompt_id, 80)),
          ` · ${group.rows.length} completions · mean ${number(mean)}`,
          group.most === group.least && group.rows.length > 1 ? el("span", { class: "tag" }, "no spread") : null,
          group.rows.length > 1 && rewards.length ? dots(group) : null,
        ),
        el("div", { class: "prompt" }, text(group.prompt, { hits: state.search?.toLowerCase() })),
        state.prompt === undefined
          ? el("button", { type: "button", class: "quiet small", on: { click: () => sharpen.go("rollouts", { kind: state.kind, step, prompt: group.prompt_id, with: otherStep(run) }) } }, "this prompt at another step")
          : el("button", { type: "button", class: "quiet small", on: { click: () => sharpen.go("prompts", {}) } }, "how prompts moved"),
      ),
      el("div", { class: "completions" }, group.shown.map((row) => one(row, group, step, state.search?.toLowerCase()))),
    );
  }

  function otherStep(run) {
    const steps = run.steps[state.kind];
    return steps[0] === state.step ? steps[steps.length - 1] : steps[0];
  }

  function hide() {
    observer?.disconnect();
    observer = null;
  }

  function update() {
    // New steps come at the end: what is looked at stays, and the slider grows.
    const run = sharpen.data.run(state.run);
    const slider = root.querySelector("input[type=range]");
    if (slider) slider.max = run.steps[state.kind].length - 1;
    else show(root, state);
  }

  sharpen.view({ id: "rollouts", title: "Rollouts", order: 40, show, hide, update });
})();
