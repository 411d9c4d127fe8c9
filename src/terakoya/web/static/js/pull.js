// Fetching a model, a starter or another, with its progress.

import { call } from "./api.js";
import { setProgress, showError } from "./dom.js";
import { bytes } from "./format.js";
import { follow } from "./live.js";
import { word, explain } from "./i18n.js";

const FINAL = ["succeeded", "failed", "cancelled"];

for (const box of document.querySelectorAll("[data-pull]")) {
  const button = box.querySelector("[data-pull-start]");
  const form = box.querySelector("[data-pull-form]");
  if (form) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const filled = [...new FormData(form)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value);
      start(box, button, Object.fromEntries(filled));
    });
  } else {
    button.addEventListener("click", () => start(box, button, { source: box.dataset.pull }));
  }
  goOn(box, button);
}

/** A pull that is under way is shown again after a reload. */
async function goOn(box, button) {
  const { tasks } = await call("GET", "/api/tasks?kind=pull");
  const starters = [...document.querySelectorAll("[data-pull]")].map(({ dataset }) => dataset.pull).filter(Boolean);
  const isOurs = (source) => (box.dataset.pull ? source === box.dataset.pull : !starters.includes(source));
  const running = tasks.find((task) => isOurs(task.request.source) && !FINAL.includes(task.state));
  if (!running) return;
  if (box.tagName === "DETAILS") box.open = true;
  button.disabled = true;
  watch(box, button, running.id);
}

async function start(box, button, wanted) {
  const failure = box.querySelector("[data-pull-error]");
  button.disabled = true;
  showError(failure, null);
  try {
    const { task_id: taskId } = await call("POST", "/api/models/pull", wanted);
    watch(box, button, taskId);
  } catch (error) {
    button.disabled = false;
    showError(failure, error);
  }
}

function watch(box, button, taskId) {
  const progress = box.querySelector("[data-pull-progress]");
  const phase = box.querySelector("[data-pull-phase]");
  const done = box.querySelector("[data-pull-done]");
  const bar = progress.querySelector(".progress");
  progress.hidden = false;
  phase.textContent = word("phase", "queued");
  setProgress(bar, null);
  follow(`/ws/tasks/${taskId}`, {
    onEvent(event) {
      if (event.type === "phase") {
        phase.textContent = word("phase", event.phase);
        const isCounted = Number.isFinite(event.done) && event.total > 0;
        setProgress(bar, isCounted ? event.done / event.total : null);
        done.textContent = isCounted && event.phase === "downloading" ? `${bytes(event.done)} / ${bytes(event.total)}` : "";
      }
      if (event.type !== "finished") return;
      if (event.status === "succeeded") {
        location.reload();
        return;
      }
      progress.hidden = true;
      button.disabled = false;
      showError(box.querySelector("[data-pull-error]"), new Error(event.error ? explain("error", event.error_code, event.error) : word("state", event.status)));
    },
  });
}
