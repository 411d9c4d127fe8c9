// What every page has: colour scheme, language, signing out, local times, toasts and the confirmation dialog.

import { call } from "./api.js";
import { byId, el } from "./dom.js";
import { moment } from "./format.js";
import { _ } from "./i18n.js";

const YEAR_SECONDS = 365 * 24 * 3600;

byId("theme-toggle").addEventListener("click", () => window.toggleTheme());

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    document.cookie = `terakoya_language=${button.dataset.language}; path=/; max-age=${YEAR_SECONDS}; samesite=strict`;
    location.reload();
  });
}

byId("sign-out")?.addEventListener("click", async () => {
  await call("POST", "/logout");
  location.assign("/login");
});

for (const time of document.querySelectorAll("[data-time]")) time.textContent = moment(time.dateTime);

export function toast(text, kind = "info") {
  const box = el("div", { class: `toast-line toast-${kind}` }, text);
  byId("toasts").append(box);
  setTimeout(() => box.remove(), 6000);
}

/** Ask before something that cannot be undone; resolves to whether the person agreed. */
export function confirmed(title, text, action) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Delete a thing after asking, and take its element away. */
export async function removeAfterAsking(element, path, name) {
  const text = _("This cannot be undone.");
  if (!(await confirmed(_("Delete %(name)s?", { name }), text, _("Delete")))) return;
  try {
    await call("DELETE", path);
    location.reload();
  } catch (error) {
    toast(error.message, "error");
    element.focus();
  }
}
