"use strict";
// The bar above the curves: the horizontal axis, smoothing, which runs are drawn and how, the zoom.
sharpen.curvesBar = (() => {
  const { el, text, short } = sharpen.dom;
  const { AXES } = sharpen.panels;

  const last = (runs) => Math.max(1, ...runs.map((run) => run.series.step.at(-1) ?? 1));

  // Steps to each side over which is averaged, as long as nobody has chosen: none in a short run.
  function usual(runs) {
    return last(runs) < 40 ? 0 : Math.round(last(runs) / 40);
  }

  // `chosen` is what the user chose, which this changes; `act`: {redraw, rebuild, zoom}.
  function fill(bar, { page, chosen, act, isBand }) {
    const many = page.runs.length > 1;
    const again = () => fill(bar, { page, chosen, act, isBand });
    const parts = [
      axes(chosen, (name) => {
        Object.assign(chosen, { axis: name, zoom: null });
        again();
        bar.querySelector(`[data-axis="${name}"]`).focus();
        act.redraw();
      }),
      smoothing(page.runs, chosen, act.redraw),
      many && page.seeds
        ? box("seeds as mean and range", chosen.band, (on) => {
            chosen.band = on;
            again();
            act.rebuild();
          })
        : null,
      many && !isBand() ? legend(page.runs, chosen, act.rebuild) : null,
      el("button", { type: "button", class: "quiet reset", hidden: chosen.zoom === null, on: { click: () => act.zoom(null) } }, "Reset zoom"),
    ];
    bar.replaceChildren(...parts.filter(Boolean));
  }

  function axes(chosen, pick) {
    const buttons = Object.entries(AXES).map(([name, axis]) => {
      const pressed = String(chosen.axis === name);
      return el("button", { type: "button", "aria-pressed": pressed, dataset: { axis: name }, on: { click: () => pick(name) } }, axis.title);
    });
    return el("div", { class: "segments", role: "group", "aria-label": "Horizontal axis" }, buttons);
  }

  function smoothing(runs, chosen, redraw) {
    const said = el("output", { class: "small soft" });
    const slider = el("input", { type: "range", id: "smoothing", min: 0 });
    const label = el("label", { class: "smoothing" }, "Smoothing ", slider, " ", said);
    slider.addEventListener("input", () => {
      chosen.half = Number(slider.value);
      say(label, runs, chosen);
      redraw();
    });
    say(label, runs, chosen);
    return label;
  }

  // A run that goes on gets longer, and with it what the slider can do.
  function say(label, runs, chosen) {
    const half = chosen.half ?? usual(runs);
    const slider = label.querySelector("input");
    slider.max = Math.max(1, half, Math.ceil(last(runs) / 8));
    slider.value = half;
    label.querySelector("output").textContent = half ? `mean of ±${half} step${half > 1 ? "s" : ""}` : "off";
  }

  function renew(bar, { page, chosen }) {
    say(bar.querySelector(".smoothing"), page.runs, chosen);
    bar.querySelector(".reset").hidden = chosen.zoom === null;
  }

  function box(words, checked, act) {
    const made = el("input", { type: "checkbox", checked, on: { change: () => act(made.checked) } });
    return el("label", { class: "check" }, made, ` ${words}`);
  }

  function legend(runs, chosen, rebuild) {
    const toggles = runs.map((run, place) => {
      const toggle = el(
        "button",
        { type: "button", class: "run-toggle", "aria-pressed": String(!chosen.off.has(run.id)) },
        sharpen.card.swatch({ place }),
        text(short(run.name, 40)),
      );
      toggle.addEventListener("click", () => {
        if (!chosen.off.delete(run.id)) chosen.off.add(run.id);
        toggle.setAttribute("aria-pressed", String(!chosen.off.has(run.id)));
        rebuild();
      });
      return toggle;
    });
    return el("div", { class: "legend", role: "group", "aria-label": "Runs" }, toggles);
  }

  return { usual, fill, renew };
})();
