// The head of every page: theme and language, each remembered. `start` resolves once the words are there.

import { el, getJson } from "./dom.js";
import { language, loadWords, onLanguage, remember, setLanguage, t } from "./words.js";

const root = document.documentElement;

export async function start() {
  const lang = document.querySelector("[data-testid=lang]");
  const theme = document.querySelector("[data-testid=theme]");
  await loadWords();
  const show = () => {
    if (lang) {
      lang.textContent = t("page.other_language");
      lang.setAttribute("lang", language() === "ko" ? "en" : "ko");
      lang.setAttribute("aria-label", t("page.other_language_label"));
    }
    const other = t(root.dataset.theme === "dark" ? "page.light" : "page.dark");
    theme?.replaceChildren(
      el("span", { "aria-hidden": "true" }, root.dataset.theme === "dark" ? "☀" : "☾"),
      el("span", { class: "long" }, ` ${other}`),
    );
    theme?.setAttribute("aria-label", other);
  };
  lang?.addEventListener("click", () => setLanguage(language() === "ko" ? "en" : "ko"));
  theme?.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    remember("obs.theme", root.dataset.theme);
  });
  onLanguage(show);
  new MutationObserver(show).observe(root, { attributeFilter: ["data-theme"] });
  show();
  const leave = document.getElementById("leave");
  if (leave) {
    getJson("/api/session").then(
      ({ cookie }) => {
        leave.hidden = !cookie;
      },
      () => {}, // without an answer there is no button
    );
  }
}

/** Call `listener` when the theme changes, whoever changed it. */
export function onTheme(listener) {
  new MutationObserver(listener).observe(root, { attributeFilter: ["data-theme"] });
}
