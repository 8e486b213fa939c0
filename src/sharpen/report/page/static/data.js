"use strict";
// The page's data: in the file itself, or from the server that it came from.
// Views add themselves here; see page.js for how they are shown.
sharpen.views = [];
sharpen.view = (view) => sharpen.views.push(view);

sharpen.data = (() => {
  const MOST_CHUNKS = 60; // kept at once: the last ones that were looked at
  const cache = new Map();
  const listeners = new Set();
  let page = null;
  let state = "";

  const embedded = () => document.getElementById("page-data");

  async function load() {
    const script = embedded();
    page = script ? JSON.parse(script.textContent) : await fetched(document.body.dataset.source);
    if (page.live) follow(document.body.dataset.events);
    return page;
  }

  async function fetched(address) {
    const answer = await fetch(address, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(`${address}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  function run(id) {
    return page.runs.find((one) => one.id === id) ?? page.runs[0];
  }

  // A part of the page that is loaded when it is looked at, such as "training/12".
  function chunk(id, name) {
    const key = `${id} ${name}`;
    if (!cache.has(key)) {
      const promise = embedded() ? unpacked(id, name) : fetched(`/run/${id}/chunk/${name}`);
      promise.catch(() => cache.delete(key)); // a failure is not for ever
      cache.set(key, promise);
    } else {
      const found = cache.get(key);
      cache.delete(key);
      cache.set(key, found);
    }
    while (cache.size > MOST_CHUNKS) cache.delete(cache.keys().next().value);
    return cache.get(key);
  }

  async function unpacked(id, name) {
    const script = document.querySelector(`script[data-run="${CSS.escape(id)}"][data-chunk="${CSS.escape(name)}"]`);
    if (script === null) throw new Error(`${name} was left out of this file, to keep it small; \`sharpen view\` has all`);
    const bytes = Uint8Array.from(atob(script.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  // New rows and findings of runs that are going on. All runs share one stream, and a page that is not seen has none:
  // a browser opens only six connections to a host, for all its tabs. With each connection all rows come again.
  function follow(address) {
    let source = null;
    const open = () => {
      source = new EventSource(address);
      source.addEventListener("open", () => told("live"));
      source.addEventListener("error", () => told("connection lost, trying again"));
      for (const [name, take] of Object.entries(events)) {
        source.addEventListener(name, (event) => {
          const data = JSON.parse(event.data);
          take(run(data.id), data);
          changed();
        });
      }
    };
    const turn = () => {
      if (document.hidden) source = source?.close() ?? null;
      else if (source === null) open();
    };
    document.addEventListener("visibilitychange", turn);
    turn();
  }

  const events = {
    rows(run, { series, catalogue, all }) {
      Object.assign(page.catalogue, catalogue);
      if (all) Object.assign(run.series, series);
      else append(run.series, series);
    },
    page(run, data) {
      Object.assign(run, data);
      cache.clear();
    },
    problem(run, { text }) {
      state = text;
    },
  };

  function append(series, added) {
    const first = added.step[0];
    // A run that was resumed does some steps again.
    let kept = series.step.length;
    while (kept > 0 && series.step[kept - 1] >= first) kept -= 1;
    for (const axis of ["step", "time_s", "tokens"]) series[axis] = [...series[axis].slice(0, kept), ...added[axis]];
    const names = new Set([...Object.keys(series.values), ...Object.keys(added.values)]);
    for (const name of names) {
      const before = series.values[name] ?? new Array(kept).fill(null);
      const after = added.values[name] ?? new Array(added.step.length).fill(null);
      series.values[name] = [...before.slice(0, kept), ...after];
    }
  }

  function told(text) {
    state = text;
    changed();
  }

  function changed() {
    for (const listener of listeners) listener();
  }

  return {
    load,
    run,
    chunk,
    append,
    onUpdate: (listener) => (listeners.add(listener), () => listeners.delete(listener)),
    get page() {
      return page;
    },
    get state() {
      return state;
    },
  };
})();
