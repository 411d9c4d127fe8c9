// The slider of a model: points between its weights before and after its run are scored, and one is kept if asked for.

import { call } from "./api.js";
import { el, showError } from "./dom.js";
import { decimal } from "./format.js";
import { _, word, explain } from "./i18n.js";
import { follow } from "./live.js";

for (const form of document.querySelectorAll("[data-slider]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start(form, event.submitter?.value === "keep");
  });
}

async function start(form, isToKeep) {
  const failure = form.querySelector("[data-slider-error]");
  showError(failure, null);
  if (isToKeep && form.elements.keep.value === "") {
    showError(failure, new Error(_("Say which point between 0 and 1 to keep.")));
    return;
  }
  disable(form, true);
  try {
    const body = isToKeep ? { keep: Number(form.elements.keep.value) } : {};
    const { task_id: taskId } = await call("POST", `/api/models/${form.dataset.slider}/interpolate`, body);
    watch(form, taskId);
  } catch (error) {
    disable(form, false);
    showError(failure, error);
  }
}

function watch(form, taskId) {
  const status = form.querySelector("[data-slider-status]");
  const points = [];
  status.textContent = word("phase", "queued");
  follow(`/ws/tasks/${taskId}`, {
    onEvent(event) {
      if (event.type === "phase") {
        const share = event.total > 0 ? ` ${Math.round((100 * event.done) / event.total)}%` : "";
        status.textContent = word("phase", event.phase) + share;
      }
      if (event.type === "eval") {
        points.push(event);
        form.querySelector("[data-slider-points]").replaceChildren(table(points));
      }
      if (event.type !== "finished") return;
      status.textContent = "";
      disable(form, false);
      if (event.status !== "succeeded") {
        const reason = event.error ? explain("error", event.error_code, event.error) : word("state", event.status);
        showError(form.querySelector("[data-slider-error]"), new Error(reason));
      } else if (event.model_id) location.reload();
    },
  });
}

/** One row a point: of every task loss and exact answers, of general text bits a byte. */
function table(points) {
  const [{ tasks, general }] = points;
  const heads = [
    _("Point"),
    ...tasks.map(({ name }) => _("%(task)s: loss, exact", { task: name })),
    ...general.map(({ language }) => _("General text: %(language)s", { language: word("language", language) })),
  ];
  const rows = points.map((point) => [
    decimal(point.share, 2),
    ...point.tasks.map(({ loss, exact }) => `${decimal(loss, 3)}, ${decimal(100 * exact, 1)}%`),
    ...point.general.map(({ bits_per_byte: bits }) => decimal(bits, 3)),
  ]);
  return el(
    "table",
    { class: "table table-sm mt-2" },
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([head, ...cells]) => el("tr", {}, el("th", { scope: "row" }, head), ...cells.map((text) => el("td", {}, text))))),
  );
}

function disable(form, isDisabled) {
  for (const button of form.querySelectorAll("button")) button.disabled = isDisabled;
}
