// The list of waiting runs: shown in order, and put in another one.

import { call } from "./api.js";
import { byId, el } from "./dom.js";
import { _ } from "./i18n.js";
import { toast } from "./shell.js";

const POLL_MS = 4000;
let shown = "";

async function look() {
  if (!document.hidden) {
    try {
      show((await call("GET", "/api/queue?kind=training")).tasks);
    } catch (error) {
      if (!shown) toast(error.message, "error");
    }
  }
  setTimeout(look, POLL_MS);
}

function show(tasks) {
  const state = JSON.stringify(tasks.map((task) => [task.id, task.priority]));
  if (state === shown) return;
  shown = state;
  byId("queue").hidden = tasks.length === 0;
  byId("queue-list").replaceChildren(...tasks.map(row));
}

function row(task, index) {
  const button = (text, label, act) => el("button", { type: "button", class: "btn btn-quiet btn-sm", "aria-label": label, onclick: () => change(act) }, text);
  const actions = el("span", { class: "row-actions" });
  if (index > 0) actions.append(button(_("To the front"), _("%(name)s to the front", { name: task.name }), () => call("PATCH", `/api/tasks/${task.id}`, { front: true })));
  actions.append(button(_("Pause"), _("Pause %(name)s", { name: task.name }), () => call("POST", `/api/tasks/${task.id}/pause`)));
  const name = el("a", { href: `/train/${task.id}` }, task.name);
  const priority = task.priority ? el("span", { class: "text-secondary" }, _("priority %(n)s", { n: task.priority })) : null;
  return el("li", { "data-queued": task.id }, name, priority, actions);
}

async function change(act) {
  try {
    await act();
    show((await call("GET", "/api/queue?kind=training")).tasks);
  } catch (error) {
    toast(error.message, "error");
  }
}

look();
