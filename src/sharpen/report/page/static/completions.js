"use strict";
// A completion with what its reward said of it, and pictures of the rewards of several.
sharpen.completions = (() => {
  const { el, svg, text, number } = sharpen.dom;

  // `group` has the least and the most reward; what matches `hits` is marked.
  function one(row, group, step, hits) {
    const place = group.most === group.least || row.reward === null ? "" : row.reward === group.most ? "top" : row.reward === group.least ? "bottom" : "";
    const parts = Object.entries(row.parts).filter(([name]) => Object.keys(row.parts).length > 1 || name === "");
    return el(
      "div",
      { class: `completion ${place}`, dataset: { row: row.row } },
      el(
        "div",
        { class: "verdict-line" },
        el("span", { class: "reward" }, row.reward === null ? "no reward" : number(row.reward)),
        row.right === null ? null : el("span", { class: row.right ? "tag good" : "tag bad" }, row.right ? "✓ right" : "✗ wrong"),
        parts.map(([name, value]) => el("span", { class: "part" }, text(name), " ", number(value))),
        el("span", { class: "soft small" }, `${row.tokens} tokens`),
        row.finish === "length" ? el("span", { class: "tag bad" }, "cut off") : null,
        row.end && row.end !== "done" && row.end !== "out_of_tokens" ? el("span", { class: "tag bad" }, text(row.end.replaceAll("_", " "))) : null,
        row.has_tokens
          ? el("button", { type: "button", class: "quiet small to-tokens", on: { click: () => sharpen.go("tokens", { step, row: row.row }) } }, "tokens")
          : null,
      ),
      row.messages ? conversation(row, hits) : el("div", { class: "said" }, row.completion === "" ? el("span", { class: "soft" }, "(nothing)") : text(row.completion, { hits, long: 1500 })),
      row.answer === null ? null : el("div", { class: "small" }, el("span", { class: "soft" }, "answer: "), text(row.answer)),
      row.cut ? el("div", { class: "soft small" }, "The text is longer than this page holds.") : null,
      row.error === null ? null : el("div", { class: "error small" }, "the reward failed: ", text(row.error)),
      row.refused === null ? null : el("div", { class: "error small" }, "could not be judged: ", text(row.refused)),
    );
  }

  function conversation(row, hits) {
    return el(
      "div",
      { class: "conversation" },
      row.messages.map((message) => {
        const rest = Object.entries(message).filter(([key]) => key !== "role" && key !== "content");
        return el(
          "div",
          { class: "message" },
          el("span", { class: "role small" }, text(message.role)),
          el("div", { class: "said" }, text(message.content, { hits, long: 1500 })),
          rest.map(([key, value]) => el("div", { class: "small soft" }, text(key), ": ", text(value, { long: 600 }))),
        );
      }),
    );
  }

  // How many completions have which reward: a bar for each of up to twenty ranges.
  function histogram(rewards, width = 160, height = 28) {
    const least = Math.min(...rewards);
    const most = Math.max(...rewards);
    const bins = new Array(20).fill(0);
    for (const reward of rewards) bins[most === least ? 0 : Math.min(19, Math.floor((20 * (reward - least)) / (most - least)))] += 1;
    const tallest = Math.max(...bins);
    return svg(
      "svg",
      { class: "histogram", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "distribution of the rewards" },
      bins.map((count, i) => {
        const tall = count ? Math.max(2, (count / tallest) * (height - 2)) : 0;
        return svg("rect", { x: (i * width) / 20, y: height - tall, width: width / 20 - 1, height: tall, fill: "var(--series-1)" });
      }),
      svg("line", { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5, stroke: "var(--line)" }),
    );
  }

  // The rewards of a group as dots on a line.
  function dots(group) {
    const x = (reward) => 5 + (group.most === group.least ? 45 : (90 * (reward - group.least)) / (group.most - group.least));
    return svg(
      "svg",
      { class: "dots", width: 100, height: 14, viewBox: "0 0 100 14", "aria-hidden": "true" },
      svg("line", { x1: 5, x2: 95, y1: 7, y2: 7, stroke: "var(--line)" }),
      group.rewards.map((reward) => svg("circle", { cx: x(reward), cy: 7, r: 3.5, fill: "var(--series-1)", "fill-opacity": 0.45 })),
    );
  }

  return { one, histogram, dots };
})();
