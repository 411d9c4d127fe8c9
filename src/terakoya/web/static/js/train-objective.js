// The form's objective and kind of adapter: shows what each is, offers those that fit the examples, and renders the
// settings that only one objective has, as the server lists them.

import { byId, el } from "./dom.js";
import { _, word } from "./i18n.js";

const objective = byId("objective");
const kind = byId("adapter.kind");
const settings = byId("objective-settings");
let shown = null;

/** What the options route needs to know of these fields. */
export function chosenMethod(strategy) {
  const chosen = {};
  if (objective.value) chosen.objective = objective.value;
  if (kind.value && strategy !== "full") chosen.adapter_kind = kind.value;
  return chosen;
}

/** Call when another objective or kind is chosen. */
export function onMethodChange(listener) {
  objective.addEventListener("change", listener);
  kind.addEventListener("change", listener);
}

/** Offer only objectives that learn from these examples; leave one that does not. */
export function fitToExamples(objectives, rowsKind) {
  for (const option of objective.options) {
    const known = objectives.find((each) => each.name === option.value);
    option.disabled = Boolean(known) && !known.learns_from.includes(rowsKind);
  }
  if (objective.selectedOptions[0]?.disabled) objective.value = "";
}

/** Show what the server made of the choice. */
export function showMethod({ resolved, objectives }) {
  const name = resolved.objective;
  const about = word("objective", `${name}.about`);
  byId("objective-help").textContent = about === `${name}.about` ? name : `${word("objective", name)}: ${about}`;
  const adapter = resolved.adapter?.kind ?? "lora";
  const told = word("adapter", `${adapter}.about`);
  byId("adapter.kind-help").textContent = told === `${adapter}.about` ? "" : told;
  byId("adapter.quantization").disabled = kind.value === "qlora";
  if (name === shown) return;
  shown = name;
  const known = objectives.find((each) => each.name === name)?.settings ?? [];
  settings.replaceChildren(...known.map(settingField));
}

function settingField(setting) {
  const id = `objective_settings.${setting.name}`;
  const label = word("setting", setting.name);
  return el("div", {},
    el("label", { class: "form-label", for: id }, label),
    el("input", { class: "form-control", type: "number", inputmode: "decimal", step: "any", id, name: id, min: String(setting.least), max: String(setting.most), placeholder: String(setting.default), "aria-describedby": `${id}-help` }),
    el("div", { class: "invalid-feedback", "data-error-for": id }),
    el("div", { class: "form-text", id: `${id}-help` }, _("%(low)s to %(high)s", { low: String(setting.least), high: String(setting.most) })),
  );
}
