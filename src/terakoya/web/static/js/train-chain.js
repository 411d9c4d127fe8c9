// The form's fields for a chain: which model the run goes on from, and what it keeps of earlier tasks.

import { byId } from "./dom.js";
import { _ } from "./i18n.js";

const FIELDS = ["after", "base", "retention.budget", "retention.regulariser.strength", "retention.replay.share"];
const after = byId("after");

/** Call once: fills in ?strategy= and ?after= of the address, and keeps the model fitting to what is gone on from. */
export function setUpChain(form, changed) {
  const asked = new URLSearchParams(location.search);
  const method = form.querySelector(`[name=strategy][value="${CSS.escape(asked.get("strategy") ?? "")}"]`);
  if (method) method.checked = true;
  const wanted = asked.get("after");
  if (wanted && [...after.options].some((option) => option.value === wanted)) after.value = wanted;
  follow();
  after.addEventListener("change", () => {
    follow();
    changed();
  });
}

/** Show the fields with the strategy they belong to. */
export function showChain(strategy) {
  byId("chain-fields").hidden = strategy !== "ewc";
}

/** Lay what was filled in over the request. */
export function withChain(request, strategy) {
  if (strategy !== "ewc") return request;
  const asked = structuredClone(request);
  for (const id of FIELDS) {
    const field = byId(id);
    if (field.validity.badInput) throw new RangeError(id);
    const text = field.value.trim();
    if (text === "") continue;
    const parts = id.split(".");
    const last = parts.pop();
    const place = parts.reduce((outer, part) => (outer[part] = { ...outer[part] }), asked);
    place[last] = id === "after" || id === "base" ? text : Number(text);
  }
  if (asked.after) delete asked.adapter; // it goes on as it is
  return asked;
}

function follow() {
  const option = after.selectedOptions[0];
  const model = byId("model");
  if (option.value && model) model.value = option.dataset.model;
  byId("after-branches").textContent = option.dataset.children ? _("%(names)s already goes on from it: this run becomes a branch beside that.", { names: option.dataset.children }) : "";
}
