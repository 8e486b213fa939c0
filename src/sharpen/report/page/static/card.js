"use strict";
// A card with a chart: its heading, what it means, the values under the cursor as text, and all numbers as a table.
sharpen.card = (() => {
  const { el, text, number } = sharpen.dom;
  const { shown, onAxis } = sharpen.chart;
  const { AXES, nearest } = sharpen.panels;
  const BETTER = { up: "↑ better", down: "↓ better", none: "" };

  // `infos`: what the catalogue says of each metric in it. The caller adds `lines`, `axis` and `drawn`, the lines.
  function create(title, info, infos) {
    const unit = [info.share ? "" : info.unit, BETTER[info.direction]].filter(Boolean).join(" · ");
    const card = {
      title,
      info,
      drawn: [],
      place: el("div", { class: "plot" }),
      readout: el("div", { class: "readout" }),
      numbers: el("div", { class: "numbers", tabindex: "0", role: "region", "aria-label": `${title}: numbers` }),
      tools: el("span", { class: "tools" }),
      hint: el("div", { class: "hint small soft" }, hints(infos)),
    };
    card.hint.hidden = true;
    card.root = el(
      "article",
      {
        class: "card curve",
        tabindex: "0",
        role: "group",
        "aria-label": `${title}. Left and right move through the steps.`,
        dataset: { panel: title },
      },
      el("header", {}, el("h3", {}, text(title)), el("span", { class: "unit small soft" }, unit), card.tools),
      card.hint,
      card.readout,
      card.place,
      card.numbers,
    );
    // Values are read out only while the keyboard moves through this card.
    card.root.addEventListener("focus", () => card.readout.setAttribute("aria-live", "polite"));
    card.root.addEventListener("blur", () => card.readout.removeAttribute("aria-live"));
    return card;
  }

  function hints(infos) {
    const different = new Set(infos.map(explained).filter(Boolean));
    return [...different].map((words) => el("p", {}, text(words)));
  }

  function explained({ meaning, normal }) {
    const sentence = (words) => words[0].toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
    return [meaning ? sentence(meaning) : "", normal ? `Normal: ${normal}.` : ""].filter(Boolean).join(" ");
  }

  // Buttons that are on or off: [label, name, the set of titles for which it is on, what to do].
  function tools(card, switches) {
    const buttons = switches.map(([label, name, on, act]) =>
      button(card, label, name, on.has(card.title), () => {
        if (!on.delete(card.title)) on.add(card.title);
        act();
        return on.has(card.title);
      }),
    );
    if (card.hint.childElementCount) {
      const turn = () => {
        card.hint.hidden = !card.hint.hidden;
        return !card.hint.hidden;
      };
      buttons.unshift(button(card, "?", "what it means", !card.hint.hidden, turn));
    }
    card.tools.replaceChildren(...buttons);
  }

  function button(card, label, name, pressed, act) {
    const made = el(
      "button",
      {
        type: "button",
        class: "quiet tool",
        title: name,
        "aria-label": `${card.title}: ${name}`,
        "aria-pressed": String(pressed),
        on: { click: () => made.setAttribute("aria-pressed", String(act())) },
      },
      label,
    );
    return made;
  }

  function swatch(line) {
    const variable = line.variable ?? `--series-${(line.place % 7) + 1}`;
    const style = { "border-top-color": `var(${variable})` };
    return el("span", { class: `line-swatch dash-${(line.dash ?? 0) % 4}`, style, "aria-hidden": "true" });
  }

  // The values at `x`, or the last of each line for null.
  function read(card, x) {
    const found = card.drawn.map((line) => nearest(line, x));
    card.readout.replaceChildren(
      el("span", { class: "where" }, where(card, found, x)),
      ...card.drawn.map((line, i) => (found[i] === null ? "" : reading(card, line, found[i], x))),
    );
  }

  function where(card, found, x) {
    const there = card.drawn.map((line, i) => ({ line, i: found[i] })).filter(({ i }) => i !== null);
    if (!there.length) return "";
    const axis = card.axis();
    if (axis === "k") return `k = ${there[0].line.x[there[0].i]}`;
    if (x === null) return there.length > 1 ? "latest" : `step ${number(there[0].line.step[there[0].i], 7)}`;
    const away = ({ line, i }) => Math.abs(line.x[i] - x);
    const { line, i } = there.reduce((best, one) => (away(one) < away(best) ? one : best));
    return `step ${number(line.step[i], 7)}${axis === "step" ? "" : ` · ${onAxis(axis, x)}`}`;
  }

  function reading(card, line, i, x) {
    const smooth = x !== null && line.smooth ? ` smoothed ${shown(card.info, line.smooth[i])}` : "";
    // A measure that is not taken at every step says of which step it is.
    const step = x !== null && line.step && line.x[i] !== x ? ` at step ${number(line.step[i], 7)}` : "";
    return el(
      "span",
      { class: "reading" },
      swatch(line),
      line.label ? el("span", { class: "soft" }, text(line.label)) : null,
      el("b", {}, shown(card.info, line.raw[i])),
      el("span", { class: "soft" }, interval(card, line, i) + smooth + step),
    );
  }

  function interval(card, line, i) {
    if (!line.low || line.low[i] === null) return "";
    return ` [${shown(card.info, line.low[i]).replace(" %", "")}, ${shown(card.info, line.high[i]).replace(" %", "")}]`;
  }

  // All numbers as they are, without smoothing.
  function numbers(card, wanted) {
    card.numbers.hidden = !wanted;
    card.numbers.replaceChildren(...(wanted ? [table(card)] : []));
  }

  function table(card) {
    const axis = card.axis();
    const rows = new Map();
    card.drawn.forEach((line, column) =>
      line.x.forEach((x, i) => {
        const key = axis === "k" ? x : line.step[i];
        if (!rows.has(key)) rows.set(key, { x, cells: [] });
        rows.get(key).cells[column] = i;
      }),
    );
    const head = (...children) => el("th", { class: "number", scope: "col" }, ...children);
    const cell = (line, i) => (i === undefined ? "" : shown(card.info, line.raw[i]) + interval(card, line, i));
    const extra = axis === "tokens" || axis === "time";
    return el(
      "table",
      { class: "small" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head(axis === "k" ? "k" : "step"),
          extra ? head(AXES[axis].title) : null,
          card.drawn.map((line) => head(text(line.label || card.title))),
        ),
      ),
      el(
        "tbody",
        {},
        [...rows].sort(([a], [b]) => a - b).map(([key, row]) =>
          el(
            "tr",
            {},
            el("th", { class: "number", scope: "row" }, number(key, 7)),
            extra ? el("td", { class: "number" }, onAxis(axis, row.x)) : null,
            card.drawn.map((line, column) => el("td", { class: "number" }, cell(line, row.cells[column]))),
          ),
        ),
      ),
    );
  }

  return { create, tools, swatch, read, numbers };
})();
