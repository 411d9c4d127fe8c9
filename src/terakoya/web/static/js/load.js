// Opening models in the model server and closing them. Knows which are open by the System call's word.

import { call } from "./api.js";
import { _ } from "./i18n.js";

for (const entry of document.querySelectorAll("[data-model]")) {
  const button = entry.querySelector(":scope > .model-card [data-load]");
  button?.addEventListener("click", () => change(button, entry.dataset.model));
}
call("GET", "/api/system").then(({ model_server: server }) => {
  for (const { id } of server.models) {
    const button = document.querySelector(`[data-model="${CSS.escape(id)}"] > .model-card [data-load]`);
    if (button) show(button, true);
  }
}, () => {}); // the buttons then offer what is always possible

async function change(button, id) {
  const isOpen = button.hasAttribute("data-open");
  button.disabled = true;
  say(button, isOpen ? _("Closing…") : _("Loading…"));
  try {
    await call("POST", `/api/models/${id}/${isOpen ? "unload" : "load"}`);
    show(button, !isOpen);
  } catch (error) {
    show(button, isOpen);
    button.title = error.message;
    say(button, error.message);
  } finally {
    button.disabled = false;
  }
}

function show(button, isOpen) {
  button.toggleAttribute("data-open", isOpen);
  button.removeAttribute("title");
  say(button, isOpen ? _("Unload model") : _("Load model"));
}

const say = (button, text) => {
  button.querySelector("span").textContent = text;
};
