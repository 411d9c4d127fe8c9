import { call } from "./api.js";
import { el } from "./dom.js";
import { _ } from "./i18n.js";
import { removeAfterAsking } from "./shell.js";
import { conversation } from "./conversation.js";
import { setUpUploads } from "./upload.js";

setUpUploads(() => location.reload());

for (const entry of document.querySelectorAll("[data-dataset]")) {
  const path = `/api/datasets/${entry.dataset.dataset}`;
  const button = entry.querySelector("[data-delete]");
  button.addEventListener("click", () => removeAfterAsking(button, path, entry.dataset.name));
  const preview = entry.querySelector("[data-preview]");
  preview.addEventListener("toggle", () => preview.open && show(preview.querySelector("[data-rows]"), path), { once: true });
}

async function show(place, path) {
  try {
    const { rows } = await call("GET", `${path}/preview?limit=20`);
    place.replaceChildren(...rows.map(conversation), el("p", { class: "form-text" }, _("The first %(n)s rows.", { n: rows.length })));
  } catch (error) {
    place.replaceChildren(el("p", { class: "text-danger" }, error.message));
  }
}
