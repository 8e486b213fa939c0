"use strict";
// Elements and texts. Nothing here makes markup of a text: models, rewards and data sets write what they like.
var sharpen = {};

sharpen.dom = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LONG = 4000; // characters of a text that are shown at first
  const PORTION = 8000; // and with each click after that: more would hold up the page

  // el("button", {class: "quiet", on: {click: f}, dataset: {step: 3}, "aria-label": "next"}, "Next")
  function el(tag, options, ...children) {
    return fill(document.createElement(tag), options, children);
  }

  function svg(tag, options, ...children) {
    return fill(document.createElementNS(SVG, tag), options, children);
  }

  function fill(element, options, children) {
    for (const [name, value] of Object.entries(options ?? {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") {
        for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
      } else if (name === "dataset") {
        Object.assign(element.dataset, value);
      } else if (name === "style") {
        for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
      } else if (name === "value" || name === "checked" || name === "disabled" || name === "selected") {
        element[name] = value;
      } else {
        element.setAttribute(name, value === true ? "" : value);
      }
    }
    element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  }

  // What a text holds and a reader would not see, or would see in another place: shown by its code.
  const HIDDEN =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;

  function code(text) {
    return "U+" + text.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  }

  // Nodes for a text: hidden characters as codes, the hits of a search marked.
  function pieces(text, hits) {
    const nodes = [];
    let end = 0;
    for (const match of text.matchAll(HIDDEN)) {
      if (match.index < end) continue; // of a run that is shown already
      if (match.index > end) nodes.push(...marked(text.slice(end, match.index), hits));
      end = match.index + match[0].length;
      let times = 1;
      for (; text.startsWith(match[0], end); times += 1) end += match[0].length;
      const said = times === 1 ? code(match[0]) : `${code(match[0])} × ${times}`;
      nodes.push(el("span", { class: "hidden-character", title: "a character that is not visible" }, said));
    }
    if (end < text.length) nodes.push(...marked(text.slice(end), hits));
    return nodes;
  }

  function marked(text, hits) {
    if (!hits) return [text];
    const nodes = [];
    const lower = text.toLowerCase();
    let end = 0;
    // Lower case may have another length; then nothing is marked rather than the wrong letters.
    if (lower.length !== text.length) return [text];
    for (let at = lower.indexOf(hits); at >= 0; at = lower.indexOf(hits, end)) {
      if (at > end) nodes.push(text.slice(end, at));
      end = at + hits.length;
      nodes.push(el("mark", {}, text.slice(at, end)));
    }
    if (end < text.length) nodes.push(text.slice(end));
    return nodes;
  }

  // A text of anybody's as it is, isolated in its direction, with the rest behind a button if it is long.
  function text(value, { hits = null, long = LONG } = {}) {
    const whole = String(value ?? "");
    const holder = el("bdi", { class: "text", dir: "auto" });
    let shown = 0;
    const show = (count) => {
      const end = beforePair(whole, Math.min(whole.length, shown + count));
      holder.append(...pieces(whole.slice(shown, end), hits));
      shown = end;
    };
    if (whole.length <= long * 1.25) {
      show(whole.length);
      return holder;
    }
    const rest = el("button", { class: "quiet", type: "button" });
    const label = () => (rest.textContent = `show more (${(whole.length - shown).toLocaleString("en")} characters)`);
    const wrap = el("span", {}, holder, " ", rest);
    rest.addEventListener("click", () => {
      show(PORTION);
      if (shown >= whole.length) rest.remove();
      else label();
    });
    show(long);
    label();
    return wrap;
  }

  // A sentence of ours, in which `names of settings` are set as code.
  function prose(value) {
    const parts = String(value ?? "").split("`");
    return el("span", {}, parts.map((part, i) => (i % 2 && i < parts.length - 1 ? el("code", {}, text(part)) : text(part))));
  }

  // Put other children into a place, and the focus on what has the label of what had it.
  function replace(place, ...children) {
    const label = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    place.replaceChildren(...children);
    if (label) place.querySelector(`[aria-label="${CSS.escape(label)}"]`)?.focus({ preventScroll: true });
  }

  // Where to cut so that no surrogate pair is torn.
  function beforePair(whole, end) {
    return /^[\ud800-\udbff][\udc00-\udfff]$/.test(whole.slice(end - 1, end + 1)) ? end - 1 : end;
  }

  function number(value, digits = 3) {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e6) return minus(value.toLocaleString("en"));
    if (size >= 1e6 || size < 1e-3) return minus(value.toExponential(Math.max(0, digits - 1)));
    return minus(value.toLocaleString("en", { maximumSignificantDigits: Math.max(digits, String(Math.trunc(size)).length) }));
  }

  function percent(value, digits = 1) {
    return value === null || value === undefined ? "–" : `${minus((100 * value).toFixed(digits))} %`;
  }

  function minus(shown) {
    return shown.replace(/-/g, "−");
  }

  function duration(seconds) {
    if (!Number.isFinite(seconds)) return "–";
    if (seconds < 90) return `${number(seconds, 2)} s`;
    const minutes = seconds / 60;
    if (minutes < 90) return `${Math.round(minutes)} min`;
    return `${number(minutes / 60, 3)} h`;
  }

  function short(value, limit) {
    const whole = String(value ?? "");
    return whole.length > limit ? whole.slice(0, limit - 1) + "…" : whole;
  }

  return { el, svg, text, prose, pieces, replace, number, percent, duration, short, minus };
})();
