// Words and numbers in the reader's language. One dictionary per language, lang/en.json and lang/ko.json, with the same keys.
//
// In HTML: data-i18n="key" fills the text, data-i18n-label the aria-label, data-i18n-hint the title, data-i18n-placeholder the placeholder.

const root = document.documentElement;
const LOCALES = { en: "en-GB", ko: "ko-KR" };
const listeners = new Set();
let words = {};
let formats = makeFormats();

export const language = () => root.lang;

/** Load the dictionary of the present language and fill the page; call it once before anything else. */
export async function loadWords() {
  const answer = await fetch(`/assets/lang/${root.lang}.json`);
  words = await answer.json();
  formats = makeFormats();
  fill(document);
}

/** Change the language, remember it, fill the page anew and tell who listens. */
export async function setLanguage(next) {
  root.lang = next;
  remember("obs.language", next);
  await loadWords();
  listeners.forEach((listener) => listener());
}

export function onLanguage(listener) {
  listeners.add(listener);
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // not remembered, then
  }
}

/** Return the words of a key with {name} replaced; `otherwise` (the key itself) where there are none. */
export function t(key, values = {}, otherwise = key) {
  const text = words[key];
  if (text === undefined) {
    return otherwise;
  }
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** A name out of a closed list of the program, in words; one that we have no word for stays as it is. */
export const named = (list, name) => (name ? t(`${list}.${name}`, {}, String(name)) : "");

export function fill(node) {
  const each = (attribute, put) => node.querySelectorAll(`[${attribute}]`).forEach((one) => put(one, t(one.getAttribute(attribute))));
  each("data-i18n", (one, text) => {
    one.textContent = text;
  });
  each("data-i18n-label", (one, text) => one.setAttribute("aria-label", text));
  each("data-i18n-hint", (one, text) => one.setAttribute("title", text));
  each("data-i18n-placeholder", (one, text) => one.setAttribute("placeholder", text));
}

// --- numbers and times

function makeFormats() {
  const locale = LOCALES[root.lang] ?? "en-GB";
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return {
    locale,
    whole: new Intl.NumberFormat(locale, { maximumFractionDigits: 0 }),
    one: new Intl.NumberFormat(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 }),
    two: new Intl.NumberFormat(locale, { minimumFractionDigits: 2, maximumFractionDigits: 2 }),
    large: new Intl.NumberFormat(locale, { maximumFractionDigits: 2 }),
    price: new Intl.NumberFormat(locale, { maximumSignificantDigits: 7 }),
    share: new Intl.NumberFormat(locale, { style: "percent", maximumFractionDigits: 0 }),
    share1: new Intl.NumberFormat(locale, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }),
    clock: new Intl.DateTimeFormat(locale, clock),
    zones: new Map(),
  };
}

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const whole = (value) => (known(value) ? formats.whole.format(value) : "–");
export const one = (value) => (known(value) ? formats.one.format(value) : "–");
/** A price or a size: cents from a thousand on, seven digits below it. */
export const price = (value) => (known(value) ? (Math.abs(value) >= 1000 ? formats.large : formats.price).format(value) : "–");
export const share = (value) => (known(value) ? formats.share.format(value) : "–");
/** A share where 99.9 % is not to be read as 100 %. */
export const share1 = (value) => (known(value) ? (value === 1 || value === 0 ? formats.share : formats.share1).format(value) : "–");

/** Seconds as a person says them: 0.3 s, 42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. */
export function span(seconds) {
  if (!known(seconds)) {
    return "–";
  }
  const s = Math.max(0, seconds);
  if (s < 9.95) {
    return t("unit.s", { n: formats.one.format(s) });
  }
  const all = Math.round(s);
  const parts = [
    [Math.floor(all / 86400), "d"],
    [Math.floor(all / 3600) % 24, "h"],
    [Math.floor(all / 60) % 60, "min"],
    [all % 60, "s"],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => t(`unit.${unit}`, { n }))
    .join(" ");
}

/** Time of day to the millisecond: when a gap really began and ended. */
export const exact = (ms, zone) =>
  known(ms)
    ? inZone(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" }).format(ms)
    : "–";

export const milliseconds = (ms) => (known(ms) ? (ms < 1000 ? t("unit.ms", { n: formats.whole.format(ms) }) : span(ms / 1000)) : "–");

export function bytes(count) {
  if (!known(count)) {
    return "–";
  }
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let left = count;
  while (left >= 1024 && at < units.length - 1) {
    left /= 1024;
    at += 1;
  }
  return `${left < 10 && at ? formats.one.format(left) : formats.whole.format(left)} ${units[at]}`;
}

/** Time of day in the browser's zone, or in `zone`. */
export function clock(ms, zone, seconds = true) {
  if (!known(ms)) {
    return "–";
  }
  if (!zone && seconds) {
    return formats.clock.format(ms);
  }
  return inZone(zone, { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}), hourCycle: "h23" }).format(ms);
}

/** Time of day on a path date ("20260122"), with its day where that is another. */
export const clockOn = (ms, zone, date) => {
  const day = new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short" }); // 2026-01-22
  return day.format(ms).replaceAll("-", "") === date ? clock(ms, zone) : moment(ms, zone);
};

/** Day and time of day; short. */
export const moment = (ms, zone) =>
  known(ms)
    ? inZone(zone, { month: "short", day: "numeric", weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(ms)
    : "–";

/** A path date (20260122) as a person reads it. */
export function dayName(day) {
  const text = String(day);
  const at = Date.UTC(Number(text.slice(0, 4)), Number(text.slice(4, 6)) - 1, Number(text.slice(6, 8)));
  return inZone("UTC", { year: "numeric", month: "long", day: "numeric", weekday: "long" }).format(at);
}

export const dashed = (day) => String(day).replace(/^(\d{4})(\d\d)(\d\d)$/, "$1-$2-$3");

export const zoneName = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

function inZone(zone, options) {
  const key = JSON.stringify([zone, options]);
  let made = formats.zones.get(key);
  if (!made) {
    made = new Intl.DateTimeFormat(formats.locale, { ...options, ...(zone ? { timeZone: zone } : {}) });
    formats.zones.set(key, made);
  }
  return made;
}
