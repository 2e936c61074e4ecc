// Small helpers for the document. What comes from a venue, a log or an operator is only ever put in as text: there is no innerHTML here.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "polyline"]);

/** Make an element. Attributes whose value is null, undefined or false are left out; children are nodes or texts. */
export function el(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set a text, only if it is another one: an untouched node costs no layout. */
export function put(node, text) {
  const value = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== value) {
    node.textContent = value;
  }
}

export function setClass(node, value) {
  if (node.getAttribute("class") !== value) {
    node.setAttribute("class", value);
  }
}

/** A bar from 0 to 1, told to screen readers as a percentage. */
export function meter(label) {
  const fill = el("span");
  const node = el(
    "div",
    { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "0" },
    fill,
  );
  return {
    node,
    set(value, tone = "") {
      const share = Math.max(0, Math.min(1, value ?? 0));
      fill.style.width = `${(share * 100).toFixed(1)}%`;
      node.setAttribute("aria-valuenow", String(Math.round(share * 100)));
      setClass(node, `meter ${tone}`);
    },
    label(text) {
      node.setAttribute("aria-label", text);
    },
  };
}

const jobs = new Map();
let asked = false;

/** Run `job` before the next picture; of several with the same key only the last. While the page is hidden nothing runs, and since
 *  keys are few nothing piles up. */
export function later(key, job) {
  jobs.set(key, job);
  if (!asked) {
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      const due = [...jobs.values()];
      jobs.clear();
      due.forEach((one) => one());
    });
  }
}

/** A table with these heads; rows are lists of texts or nodes. `right`: places of number columns; `wrap`: of long texts. */
export function table(heads, rows, { right = [], wrap = [], label = "", name = "" } = {}) {
  const style = (at) => (right.includes(at) ? "right" : wrap.includes(at) ? "wrap" : null);
  const head = el(
    "tr",
    {},
    heads.map((text, at) => el("th", { scope: "col", class: style(at) }, text)),
  );
  const body = rows.map((row) =>
    el(
      "tr",
      {},
      row.map((cell, at) => el("td", { class: style(at) }, cell ?? "–")),
    ),
  );
  return el("table", { "aria-label": label || null, class: name || null }, el("thead", {}, head), el("tbody", {}, body));
}

/** Ask for JSON. Throws an Error with the server's own words; a login that has ended leads to the login page. */
export async function getJson(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json" } });
  if (answer.status === 401) {
    location.assign("/login");
    throw new Error("401");
  }
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw new Error(value.error ?? `HTTP ${answer.status}`);
  }
  return value;
}
