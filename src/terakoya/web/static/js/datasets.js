import { call } from "./api.js";
import { el } from "./dom.js";
import { _, finding } from "./i18n.js";
import { removeAfterAsking } from "./shell.js";
import { conversation } from "./conversation.js";
import { reportView } from "./dataset-report.js";
import { setUpUploads } from "./upload.js";

setUpUploads(() => location.reload());

for (const entry of document.querySelectorAll("[data-dataset]")) {
  const path = `/api/datasets/${entry.dataset.dataset}`;
  const button = entry.querySelector("[data-delete]");
  button.addEventListener("click", () => removeAfterAsking(button, path, entry.dataset.name));
  const preview = entry.querySelector("[data-preview]");
  preview.addEventListener("toggle", () => preview.open && show(preview.querySelector("[data-rows]"), path), { once: true });
  const report = entry.querySelector("[data-report]");
  report.addEventListener("toggle", () => report.open && showReport(report.querySelector("[data-found]"), path), { once: true });
}
for (const notice of document.querySelectorAll("[data-notice]")) notice.textContent = finding(notice.textContent);

async function showReport(place, path) {
  try {
    place.replaceChildren(...reportView(await call("GET", `${path}/report`)));
  } catch (error) {
    place.replaceChildren(el("p", { class: "text-danger" }, error.message));
  }
}

async function show(place, path) {
  try {
    const { rows } = await call("GET", `${path}/preview?limit=20`);
    place.replaceChildren(...rows.map(conversation), el("p", { class: "form-text" }, _("The first %(n)s rows.", { n: rows.length })));
  } catch (error) {
    place.replaceChildren(el("p", { class: "text-danger" }, error.message));
  }
}
