// The page for what is not there: which part of the address is wrong, and where to go from here.

import { el, getJson, put } from "./dom.js";
import { start } from "./page.js";
import { dashed, onLanguage, t } from "./words.js";

const [kind, ...rest] = location.pathname.split("/").filter(Boolean).map(plain);
const known = ["day", "symbol"].includes(kind) && rest.length ? kind : "page";
let days = []; // [name of the provider, its day of the market now]

/** A part of the address as a person wrote it; one that is no text stays as it is. */
function plain(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  put(document.getElementById("title"), t(`missing.${known}`, { what: rest.at(-1) ?? "" }));
  put(document.getElementById("what"), t(`missing.${known}_why`, { what: rest.at(-1) ?? "", provider: rest[0] ?? "" }));
  document.title = `404 · ${t("page.title")}`;
  const link = (href, text) => el("li", {}, el("a", { href }, text));
  document
    .getElementById("do")
    .replaceChildren(
      link("/", t("missing.live")),
      ...days.map(([name, day]) => link(`/day/${day}?provider=${encodeURIComponent(name)}`, t("missing.today", { name, day: dashed(day) }))),
    );
}

await start();
onLanguage(show);
show();
try {
  const { providers } = await getJson("/api/status");
  const today = async ({ name }) => [name, (await getJson(`/api/heat?provider=${encodeURIComponent(name)}`)).date];
  const found = await Promise.allSettled(providers.map(today));
  days = found.filter((one) => one.status === "fulfilled").map((one) => one.value);
  show();
} catch {
  // The way to the live page is enough.
}
