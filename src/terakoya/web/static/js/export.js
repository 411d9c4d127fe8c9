// Writing a model in another form, with its progress; and the files of those that were written.

import { call } from "./api.js";
import { showError } from "./dom.js";
import { word, explain } from "./i18n.js";
import { follow } from "./live.js";

for (const form of document.querySelectorAll("[data-export]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start(form);
  });
}

for (const details of document.querySelectorAll("[data-files]")) {
  details.addEventListener("toggle", () => showFiles(details), { once: true });
}

async function start(form) {
  const button = form.querySelector("button");
  const failure = form.querySelector("[data-export-error]");
  const format = form.elements.format.value;
  button.disabled = true;
  showError(failure, null);
  try {
    const path = `/api/models/${form.dataset.export}`;
    const { task_id: taskId } =
      format === "merge" ? await call("POST", `${path}/merge`, {}) : await call("POST", `${path}/export`, { format });
    watch(form, button, taskId);
  } catch (error) {
    button.disabled = false;
    showError(failure, error);
  }
}

function watch(form, button, taskId) {
  const status = form.querySelector("[data-export-status]");
  status.textContent = word("phase", "queued");
  follow(`/ws/tasks/${taskId}`, {
    onEvent(event) {
      if (event.type === "phase") {
        const share = event.total > 0 ? ` ${Math.round((100 * event.done) / event.total)}%` : "";
        status.textContent = word("phase", event.phase) + share;
      }
      if (event.type !== "finished") return;
      if (event.status === "succeeded") {
        location.reload();
        return;
      }
      status.textContent = "";
      button.disabled = false;
      const reason = event.error ? explain("error", event.error_code, event.error) : word("state", event.status);
      showError(form.querySelector("[data-export-error]"), new Error(reason));
    },
  });
}

async function showFiles(details) {
  const { files } = await call("GET", `/api/models/${details.dataset.files}/files`);
  const names = new Set(files.map((file) => file.name));
  for (const link of details.querySelectorAll("[data-file]")) link.hidden = !names.has(link.dataset.file);
}
