"use strict";
// The page's frame: the tabs, the run that is looked at, the address (#view?run=…&step=…), the keyboard.
(() => {
  const { el, text } = sharpen.dom;
  let shown = null;
  let main = null;
  let bar = null;

  function state() {
    const [view, query] = location.hash.slice(1).split("?");
    return { view: view || "glance", ...Object.fromEntries(new URLSearchParams(query ?? "")) };
  }

  // Go to a view; what is not named stays as it is only for the run.
  sharpen.go = (view, params = {}) => {
    const query = new URLSearchParams();
    const all = { run: state().run, ...params };
    for (const [key, value] of Object.entries(all)) {
      if (value !== undefined && value !== null && value !== "") query.set(key, value);
    }
    location.hash = query.size ? `${view}?${query}` : view;
  };

  // Change parts of the address without another entry in the browser's history.
  sharpen.keep = (params) => {
    const now = state();
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries({ ...now, ...params })) {
      if (key !== "view" && value !== undefined && value !== null && value !== "") query.set(key, value);
    }
    history.replaceState(null, "", `#${now.view}?${query}`);
  };

  const views = () => [...sharpen.views].sort((a, b) => a.order - b.order);

  function draw() {
    const now = state();
    const view = views().find((one) => one.id === now.view) ?? views()[0];
    const run = sharpen.data.run(now.run);
    if (shown?.hide) shown.hide();
    shown = view;
    document.title = `${view.title} · ${sharpen.data.page.title}`;
    for (const tab of bar.querySelectorAll("[role=tab]")) {
      const chosen = tab.dataset.view === view.id;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    const chooser = bar.querySelector("select.run");
    if (chooser) chooser.value = run.id;
    main.replaceChildren();
    main.setAttribute("aria-labelledby", `tab-${view.id}`);
    guarded(() => view.show(main, { ...now, run: run.id }));
  }

  // A view that fails says so; the others still work.
  function guarded(work) {
    const view = shown;
    const failed = (error) => {
      console.error(error);
      if (view !== shown) return; // the reader has gone on: another view stands there now
      main.replaceChildren(el("p", { class: "failure", role: "alert" }, `${view.title} failed: `, text(error.message ?? error)));
    };
    try {
      const promise = work();
      if (promise?.catch) promise.catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  function tabs() {
    const list = el("div", { role: "tablist", class: "tabs", "aria-label": "Views" });
    for (const view of views()) {
      list.append(
        el(
          "button",
          {
            role: "tab",
            type: "button",
            id: `tab-${view.id}`,
            "aria-controls": "view",
            dataset: { view: view.id },
            on: { click: () => sharpen.go(view.id) },
          },
          view.title,
        ),
      );
    }
    list.addEventListener("keydown", (event) => {
      const order = [...list.children];
      const at = order.indexOf(document.activeElement);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: order.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const next = order[(to + order.length) % order.length];
      next.focus();
      next.click();
    });
    return list;
  }

  function chooser() {
    const runs = sharpen.data.page.runs;
    if (runs.length < 2) return null;
    const select = el(
      "select",
      { class: "run", "aria-label": "Run", on: { change: () => sharpen.go(state().view, { run: select.value }) } },
      runs.map((run) => el("option", { value: run.id }, sharpen.dom.short(run.name, 60))),
    );
    return select;
  }

  // Light, dark, or as the system is. Kept where the browser lets a page of a file keep something.
  function theme() {
    const order = ["auto", "light", "dark"];
    const stored = () => {
      try {
        return localStorage.getItem("sharpen-theme");
      } catch {
        return null;
      }
    };
    const button = el("button", { type: "button", class: "quiet theme" });
    const apply = (name) => {
      document.documentElement.dataset.theme = name;
      button.textContent = { auto: "◐ auto", light: "○ light", dark: "● dark" }[name];
      button.setAttribute("aria-label", `Colours: ${name}`);
    };
    button.addEventListener("click", () => {
      const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
      apply(next);
      try {
        localStorage.setItem("sharpen-theme", next);
      } catch {
        // A page of a file may have no storage; then the choice lasts as long as the page.
      }
      draw();
    });
    apply(order.includes(stored()) ? stored() : "auto");
    return button;
  }

  function status() {
    const place = el("span", { class: "status", "aria-live": "polite" });
    const update = () => {
      const run = sharpen.data.run(state().run);
      const said = { running: "running", finished: "finished", stopped: "stopped" }[run.status] ?? "";
      place.replaceChildren(
        el("span", { class: `dot ${run.status}` }),
        sharpen.data.page.live && sharpen.data.state ? `${said} · ${sharpen.data.state}` : said,
      );
    };
    sharpen.data.onUpdate(update);
    addEventListener("hashchange", update);
    update();
    return place;
  }

  function keys(event) {
    const field = event.target.closest?.("input, select, textarea, [contenteditable]");
    if (field || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const number = Number(event.key);
    if (number >= 1 && number <= views().length) sharpen.go(views()[number - 1].id);
    else if (event.key === "?") help();
  }

  function help() {
    const dialog = el(
      "dialog",
      { class: "help", "aria-label": "Keyboard" },
      el("h2", {}, "Keyboard"),
      el(
        "dl",
        {},
        [
          [`1 – ${views().length}`, "the views"],
          ["← →", "in Curves, Rollouts and Tokens: the step before and after, the token before and after"],
          ["Tab, Enter", "move and choose"],
          ["?", "this list"],
        ].flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)]),
      ),
      el("button", { type: "button", on: { click: () => dialog.close() } }, "Close"),
    );
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  async function start() {
    const root = document.getElementById("page");
    try {
      await sharpen.data.load();
    } catch (error) {
      root.replaceChildren(el("p", { class: "failure", role: "alert" }, "The data cannot be read: ", text(error.message)));
      throw error;
    }
    main = el("main", { id: "view", role: "tabpanel", tabindex: "-1" });
    bar = el(
      "header",
      { class: "bar" },
      el("h1", {}, text(sharpen.data.page.title)),
      chooser(),
      status(),
      tabs(),
      el("button", { type: "button", class: "quiet", "aria-label": "Keyboard", on: { click: help } }, "?"),
      theme(),
    );
    root.replaceChildren(bar, main);
    addEventListener("hashchange", draw);
    addEventListener("keydown", keys);
    sharpen.data.onUpdate(() => shown?.update && guarded(() => shown.update()));
    draw();
  }

  start();
})();
