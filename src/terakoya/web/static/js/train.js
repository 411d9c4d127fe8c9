// The training form: shows the defaults that fit what is chosen, and starts the run.

import { call } from "./api.js";
import { byId, el, showError } from "./dom.js";
import { conversation } from "./conversation.js";
import { count, rate } from "./format.js";
import { _, word } from "./i18n.js";
import { setUpPlan } from "./plan.js";
import { chosenPreset, fillFrom, showPresets, unshown } from "./recipe.js";
import "./pull.js";
import { setUpChain, showChain, withChain } from "./train-chain.js";
import { chosenMethod, fitToExamples, onMethodChange, showMethod } from "./train-objective.js";
import { setUpUploads } from "./upload.js";

const form = byId("train-form");
const model = byId("model");
const dataset = byId("dataset");
let resolved = null;
let datasets = [];
let objectives = [];

choose(model, "model");
choose(dataset, "dataset");
setUpUploads(added);
setUpChain(form, refresh);
form.addEventListener("submit", start);
onMethodChange(refresh);
const planAnew = setUpPlan(form, planned);
for (const field of [model, dataset, byId("preset"), ...form.querySelectorAll("[name=strategy]")]) field?.addEventListener("change", refresh);
for (const id of ["epochs", "max_steps", "batch_size", "learning_rate", "evaluation.heldout_fraction"]) byId(id).addEventListener("input", summarize);
fillFrom(form).catch((error) => showError(byId("train-error"), error)).then(refresh).then(planAnew);

function choose(select, parameter) {
  const wanted = new URLSearchParams(location.search).get(parameter);
  if (select && wanted && [...select.options].some((option) => option.value === wanted)) select.value = wanted;
}

function added(info) {
  const option = el("option", { value: info.id, "data-name": info.name }, `${info.name} · ${_("%(n)s rows", { n: count(info.rows) })}`);
  dataset.prepend(option);
  dataset.value = info.id;
  byId("dataset-chooser").hidden = false;
  refresh();
  planAnew();
}

function strategy() {
  return form.querySelector("[name=strategy]:checked").value;
}

async function refresh() {
  byId("adapter-fields").hidden = strategy() === "full";
  showChain(strategy());
  const ready = Boolean(model?.value && dataset.value);
  byId("start").disabled = !ready;
  byId("start-hint").textContent = ready ? "" : _("First choose a model and examples.");
  if (!ready) return;
  try {
    const info = datasets.find((each) => each.id === dataset.value);
    if (info) fitToExamples(objectives, info.kind);
    const query = new URLSearchParams({ model: model.value, dataset: dataset.value, strategy: strategy(), ...(info ? chosenMethod(strategy()) : {}) });
    const preset = chosenPreset(strategy());
    if (preset) query.set("preset", preset);
    const options = await call("GET", `/api/train/options?${query}`);
    ({ resolved, datasets, objectives } = options);
    fitToExamples(objectives, datasets.find((each) => each.id === dataset.value).kind);
    if (!info && byId("objective").value) return refresh(); // just uploaded: only now is its kind known
    showMethod({ resolved, objectives });
    showPresets(options.presets, strategy());
  } catch (error) {
    showError(byId("train-error"), error);
    return;
  }
  showDefaults();
  summarize();
  showSample();
}

function showDefaults() {
  for (const input of form.querySelectorAll("[data-default]")) {
    const value = defaultOf(input.name);
    if (value !== null && value !== undefined) input.placeholder = typeof value === "number" ? rate(value) : String(value);
    else input.placeholder = input.name === "max_length" ? _("as needed") : _("not set");
  }
}

function defaultOf(name) {
  const flat = { "evaluation.heldout_fraction": "heldout_fraction", "evaluation.max_examples": "max_evaluation_examples" };
  if (name in flat) return resolved[flat[name]];
  if (name === "retention.budget") return resolved.retention?.budget;
  if (name.startsWith("retention.")) return null;
  if (name.startsWith("adapter.")) return resolved.adapter?.[name.slice("adapter.".length)];
  return resolved[name];
}

function summarize() {
  if (!resolved) return;
  const info = datasets.find((each) => each.id === dataset.value);
  if (!info) return;
  const share = entered("evaluation.heldout_fraction") ?? resolved.heldout_fraction;
  const heldout = info.heldout_rows || info.rows - Math.round(info.rows * (1 - share));
  const rows = info.rows - heldout;
  const perEpoch = Math.ceil(rows / (entered("batch_size") ?? resolved.batch_size));
  const epochs = entered("epochs") ?? resolved.epochs;
  const steps = entered("max_steps") ?? (epochs === null ? resolved.max_steps : perEpoch * epochs);
  const facts = {
    model: model.selectedOptions[0].dataset.name,
    rows: _("%(n)s to learn from", { n: count(rows) }),
    heldout: _("%(n)s to judge by", { n: count(heldout) }),
    strategy: word("strategy", strategy()),
    steps: entered("max_steps") ? count(steps) : _("%(steps)s (epochs: %(epochs)s)", { steps: count(steps), epochs }),
    learning_rate: rate(entered("learning_rate") ?? resolved.learning_rate),
  };
  for (const [name, text] of Object.entries(facts)) form.querySelector(`[data-fact=${name}]`).textContent = text;
}

function entered(name) {
  const text = byId(name).value.trim();
  return text === "" || Number.isNaN(Number(text)) ? null : Number(text);
}

async function showSample() {
  const place = byId("dataset-sample");
  const chosen = dataset.value;
  const { rows } = await call("GET", `/api/datasets/${chosen}/preview?limit=2`);
  if (dataset.value !== chosen) return;
  place.hidden = rows.length === 0;
  place.replaceChildren(...rows.map(conversation));
}

/** The request: only what was filled in, so that the server's defaults stay the server's. */
function requested() {
  const request = { ...unshown(), model: model.value, dataset: dataset.value, strategy: strategy() };
  if (strategy() === "full") delete request.adapter;
  for (const field of form.querySelectorAll("input[type=number], #name, select[name^=schedule], #long_rows, #gradient_checkpointing, #objective, select[name^=adapter], #preset")) {
    const text = field.value.trim();
    const isHidden = field.name.startsWith("adapter.") && strategy() === "full";
    if (field.validity.badInput) throw new RangeError(field.name);
    if (text === "" || isHidden || field.disabled || field.closest("#chain-fields")) continue;
    const [outer, inner] = field.name.split(".");
    const value = field.type === "number" ? Number(text) : text;
    if (inner) request[outer] = { ...request[outer], [inner]: value };
    else request[outer] = value;
  }
  const prompts = byId("sample_prompts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (prompts.length) request.sample_prompts = prompts;
  const trackers = [...form.querySelectorAll("[name=trackers]:checked")].map((box) => box.value);
  if (trackers.length) request.trackers = trackers;
  if (!request.early_stopping?.patience) delete request.early_stopping;
  if (request.evaluation?.every_steps) delete request.evaluation.every_fraction;
  return withChain(request, strategy());
}

/** The request as far as it can be planned; null while something is missing or being typed. */
function planned() {
  if (!model?.value || !dataset.value) return null;
  try {
    return requested();
  } catch {
    return null;
  }
}

async function start(event) {
  event.preventDefault();
  for (const field of form.querySelectorAll(".is-invalid")) field.classList.remove("is-invalid");
  showError(byId("train-error"), null);
  byId("start").disabled = true;
  try {
    const { task_id: taskId } = await call("POST", "/api/train", requested());
    location.assign(`/train/${taskId}`);
  } catch (error) {
    byId("start").disabled = false;
    if (error instanceof RangeError) markInvalid(error.message, _("This is not a number."));
    else if (!markFields(error.fields)) showError(byId("train-error"), error);
  }
}

/** Show each field's error at the field; false if one has no field here. */
function markFields(fields) {
  const marked = fields.map(({ field, message }) => markInvalid(field.replace(/^body\./, ""), message));
  return marked.length > 0 && marked.every(Boolean);
}

function markInvalid(name, message) {
  const input = byId(name);
  const place = form.querySelector(`[data-error-for="${CSS.escape(name)}"]`);
  if (!input || !place) return false;
  input.classList.add("is-invalid");
  place.textContent = message;
  if (byId("advanced").contains(input)) byId("advanced").open = true;
  input.focus();
  return true;
}
