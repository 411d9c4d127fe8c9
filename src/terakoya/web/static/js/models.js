import "./export.js";
import "./load.js";
import "./marks.js";
import "./slider.js";
import "./pull.js";
import { removeAfterAsking } from "./shell.js";

for (const entry of document.querySelectorAll("[data-model]")) {
  const button = entry.querySelector("[data-delete]");
  button?.addEventListener("click", () => removeAfterAsking(button, `/api/models/${entry.dataset.model}`, entry.dataset.name));
}
