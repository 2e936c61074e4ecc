// Before anything is painted: the theme that the reader chose, or that of the system. A plain script in <head>, so that no page
// flashes; also the language of <html>, which screen readers ask for first.
(() => {
  const stored = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage may be forbidden; then the choice lasts as long as the page
    }
  };
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = stored("obs.theme");
  const apply = (theme) => {
    root.dataset.theme = theme;
  };
  apply(chosen === "dark" || chosen === "light" ? chosen : system.matches ? "dark" : "light");
  system.addEventListener("change", () => {
    if (!stored("obs.theme")) {
      apply(system.matches ? "dark" : "light");
    }
  });
  const language = stored("obs.language") ?? (navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en");
  root.lang = language === "ko" ? "ko" : "en";
})();
