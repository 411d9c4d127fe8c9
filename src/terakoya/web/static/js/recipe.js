// Presets in the training form, and the form filled from the settings of an earlier run (?from=<run>).

import { call } from "./api.js";
import { byId, el } from "./dom.js";
import { _, word } from "./i18n.js";

let presets = [];
let others = {};

/** The chosen preset if it is of this strategy: a preset of another one would contradict the choice. */
export function chosenPreset(strategy) {
  const select = byId("preset");
  const preset = presets.find((each) => each.name === select.value);
  if (preset && preset.strategy !== strategy) select.value = "";
  return select.value;
}

/** List what fits the chosen model and strategy, with the reason for the one that is chosen. */
export function showPresets(known, strategy) {
  presets = known;
  const select = byId("preset");
  const chosen = select.value;
  const fitting = presets.filter((each) => each.fits && each.strategy === strategy);
  select.replaceChildren(select.options[0], ...fitting.map((each) => el("option", { value: each.name }, each.name)));
  select.value = fitting.some((each) => each.name === chosen) ? chosen : "";
  byId("preset-reason").textContent = select.value ? word("preset", select.value.replaceAll("-", "_")) : "";
}

/** Fill the form with what a run took; what the form has no field for is kept and asked for as it was. */
export async function fillFrom(form) {
  const run = new URLSearchParams(location.search).get("from");
  if (!run) return;
  const fields = await call("GET", `/api/train/${encodeURIComponent(run)}/recipe?format=json`);
  others = {};
  for (const [name, value] of Object.entries(fields)) fill(form, name, value, others);
  byId("advanced").open = true;
}

/** What the last filling found no field for. */
export const unshown = () => others;

function fill(form, name, value, rest) {
  if (name === "model" || name === "dataset") choose(byId(name), value);
  else if (name === "strategy") check(form, "strategy", [value]);
  else if (name === "trackers") check(form, "trackers", value);
  else if (name === "sample_prompts") byId(name).value = value.join("\n");
  else if (value !== null && typeof value === "object" && !Array.isArray(value)) fillGroup(form, name, value, rest);
  else if (byId(name)?.name === name) byId(name).value = value;
  else rest[name] = value;
}

function fillGroup(form, group, values, rest) {
  const unknown = {};
  for (const [name, value] of Object.entries(values)) {
    const field = byId(`${group}.${name}`);
    if (field) field.value = value;
    else unknown[name] = value;
  }
  if (Object.keys(unknown).length) rest[group] = unknown;
}

function choose(select, name) {
  const option = [...(select?.options ?? [])].find((each) => each.dataset.name === name);
  if (!option) throw new Error(_("%(name)s, which that run used, is not here any more.", { name }));
  select.value = option.value;
}

function check(form, name, values) {
  for (const input of form.querySelectorAll(`[name=${name}]`)) input.checked = values.includes(input.value) && !input.disabled;
}
