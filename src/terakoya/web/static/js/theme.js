// Sets the colour scheme before the first paint: the person's choice, else the system's. A classic script on purpose.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = localStorage.getItem("terakoya_theme");
    document.documentElement.dataset.bsTheme = chosen ?? (dark.matches ? "dark" : "light");
    document.dispatchEvent(new Event("themechange"));
  };
  dark.addEventListener("change", apply);
  window.toggleTheme = () => {
    const next = document.documentElement.dataset.bsTheme === "dark" ? "light" : "dark";
    const isSystems = (next === "dark") === dark.matches;
    if (isSystems) localStorage.removeItem("terakoya_theme");
    else localStorage.setItem("terakoya_theme", next);
    apply();
  };
  apply();
})();
