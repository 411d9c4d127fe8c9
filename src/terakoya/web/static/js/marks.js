// What people say of a model: notes, tags, stage, licence, engine.

import { call } from "./api.js";
import { showError } from "./dom.js";

for (const form of document.querySelectorAll("[data-marks]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const failure = form.querySelector("[data-marks-error]");
    showError(failure, null);
    const marks = Object.fromEntries(new FormData(form));
    marks.tags = marks.tags.split(/[,、，]/).map((tag) => tag.trim()).filter(Boolean);
    if (!marks.license) delete marks.license;
    try {
      await call("PATCH", `/api/models/${form.dataset.marks}`, marks);
      location.reload();
    } catch (error) {
      showError(failure, error);
    }
  });
}
