// Questions to a collection, what became of putting them, and how two settings compare.

import { call, uploadForm } from "./api.js";
import { fillCollections, pathOf, remember } from "./collections.js";
import { byId, el, setProgress, showError } from "./dom.js";
import { dropZone } from "./drop-zone.js";
import { evaluationView } from "./evaluation-view.js";
import { count } from "./format.js";
import { _, explain, word } from "./i18n.js";
import { follow } from "./live.js";
import { fillSettings, nameOf, readSettings } from "./retrieval-fields.js";
import { removeAfterAsking, toast } from "./shell.js";

const MADE = 100;
const picker = byId("collection");
let known = new Map();
let running = null;

const here = () => `collection=${encodeURIComponent(picker.value)}`;

async function reload(wanted) {
  known = await fillCollections(picker, wanted);
  await show();
}

async function show() {
  const collection = known.get(picker.value);
  byId("generate").disabled = !collection?.passages;
  const { question_sets: sets } = collection ? await call("GET", `/rag/question-sets?${here()}`) : { question_sets: [] };
  const { evaluations } = collection ? await call("GET", `/rag/evaluations?${here()}`) : { evaluations: [] };
  byId("question-sets").replaceChildren(...sets.map(setRow));
  byId("no-questions").hidden = sets.length > 0;
  byId("evaluate-form").hidden = sets.length === 0;
  byId("questions").replaceChildren(...sets.map(({ id, name }) => el("option", { value: id }, name)));
  if (collection) for (const side of ["first", "second"]) fillSettings(byId(side), collection.retrieval);
  byId("evaluations").replaceChildren(...evaluations.map((one) => evaluationView(one, { onDelete: (event) => removeAfterAsking(event.target, `/rag/evaluations/${one.id}`, one.question_set), onUse: () => use(one.report.suggested) })));
}

function setRow(set) {
  const made = set.origin === "generated" ? el("span", { class: "tag" }, _("made from the documents: easier than people’s")) : null;
  const remove = el("button", { class: "btn btn-quiet btn-sm", type: "button", onclick: () => removeAfterAsking(remove, `/rag/question-sets/${set.id}`, set.name) }, _("Delete"));
  return el(
    "li",
    { class: "row-item row-open" },
    el(
      "div",
      { class: "row-body" },
      el("span", { class: "row-main" }, el("span", { class: "row-title" }, set.name), el("span", { class: "row-meta" }, el("span", {}, _("%(n)s questions", { n: count(set.questions) })), made)),
      el("span", { class: "row-actions" }, el("button", { class: "btn btn-quiet btn-sm", type: "button", title: _("The questions whose answers can be verified, as a dataset to train a model on."), onclick: () => exportRows(set) }, _("Make a training set")), remove),
    ),
  );
}

// -- questions --

async function send(file) {
  if (!file) return;
  showError(byId("questions-error"), null);
  byId("questions-problems").hidden = true;
  try {
    const added = await uploadForm("/rag/question-sets", file, { collection: picker.value, name: file.name.replace(/\.[^.]*$/, "").slice(0, 100) }, () => {});
    byId("questions-problems").hidden = !added.problem_count;
    byId("questions-problems").textContent = [_("%(n)s questions cannot be judged on the documents as they are:", { n: count(added.problem_count) }), ...added.problems].join("\n");
    await show();
  } catch (error) {
    showError(byId("questions-error"), error);
  }
}

async function generate() {
  showError(byId("questions-error"), null);
  byId("generate").disabled = true;
  try {
    const now = new Date().toISOString().slice(0, 19).replaceAll(":", ".");
    await call("POST", "/rag/question-sets/generate", { collection: picker.value, name: `${picker.value} ${now}`, count: MADE, seed: Math.floor(Math.random() * 1e9) });
    await show();
  } catch (error) {
    showError(byId("questions-error"), error);
  }
  byId("generate").disabled = false;
}

// -- evaluations --

function configurations() {
  const sides = byId("compare").checked ? ["first", "second"] : ["first"];
  const answers = byId("answers").value;
  const own = known.get(picker.value)?.retrieval ?? {};
  const chosen = sides.map((side) => {
    const retrieval = readSettings(byId(side));
    const model = answers === "generative" ? byId(`${side}-model`) : null;
    const isOwn = Object.entries(retrieval).every(([name, value]) => own[name] === value);
    const name = [isOwn ? _("as it is") : nameOf(retrieval), ...(model ? [model.selectedOptions[0].text] : [])].join(" · ");
    return { name: name.slice(0, 100), retrieval, answers, model: model?.value ?? null };
  });
  return chosen;
}

function start(event) {
  event.preventDefault();
  begin("/rag/evaluate", { configurations: configurations() });
}

/** Have the collection searched as tuning suggests. */
async function use(retrieval) {
  try {
    await call("PATCH", pathOf(picker.value), { retrieval });
    toast(_("The collection is searched so from now on."));
    await reload(picker.value);
  } catch (error) {
    complain(error);
  }
}

/** Make a data set of the questions whose answers can be verified. */
function exportRows(set) {
  const name = `${set.name.slice(0, 70)} ${new Date().toISOString().slice(0, 19).replaceAll(":", ".")}`;
  begin("/rag/training-set", { questions: set.id, name }, _("The dataset %(name)s is ready.", { name }));
}

async function begin(path, options, done = null) {
  showError(byId("evaluate-error"), null);
  working(true);
  try {
    const { task_id: taskId } = await call("POST", path, { questions: byId("questions").value, ...options });
    watch(taskId, done);
  } catch (error) {
    working(false);
    showError(byId("evaluate-error"), error);
  }
}

function watch(taskId, done = null) {
  running = taskId;
  const bar = byId("evaluate-progress").querySelector(".progress");
  byId("evaluate-phase").textContent = word("phase", "queued");
  byId("evaluate-done").textContent = "";
  setProgress(bar, null);
  follow(`/ws/tasks/${taskId}`, {
    onEvent(event) {
      if (event.type === "phase") {
        byId("evaluate-phase").textContent = word("phase", event.phase);
        setProgress(bar, event.total ? event.done / event.total : null);
        byId("evaluate-done").textContent = event.total ? `${count(event.done)} / ${count(event.total)}` : "";
      }
      if (event.type !== "finished") return;
      working(false);
      if (event.status === "succeeded") {
        if (done) toast(done);
        show().catch(complain);
      }
      else if (event.status === "failed") complain(new Error(explain("error", event.error_code, event.error)));
      else toast(word("state", event.status));
    },
  });
}

function working(isWorking) {
  byId("start").disabled = byId("tune").disabled = byId("calibrate").disabled = isWorking;
  byId("stop").hidden = byId("evaluate-progress").hidden = !isWorking;
  if (!isWorking) running = null;
}

const complain = (error) => showError(byId("evaluate-error"), error);

/** One that is under way is shown again after a reload. */
async function goOn() {
  const { tasks } = await call("GET", "/api/tasks?kind=evaluation&limit=20");
  const task = tasks.find(({ state }) => ["queued", "preparing", "running"].includes(state));
  if (!task) return;
  working(true);
  watch(task.id);
}

function fit() {
  byId("second").hidden = !byId("compare").checked;
  for (const writer of document.querySelectorAll("[data-writer]")) writer.hidden = byId("answers").value !== "generative";
}

picker.addEventListener("change", () => {
  remember(picker.value);
  show().catch(complain);
});
byId("file").addEventListener("change", () => {
  send(byId("file").files[0]);
  byId("file").value = "";
});
dropZone(byId("drop"), (files) => send(files[0]));
byId("generate").addEventListener("click", generate);
byId("compare").addEventListener("change", fit);
byId("answers").addEventListener("change", fit);
byId("evaluate-form").addEventListener("submit", start);
byId("tune").addEventListener("click", () => begin("/rag/tune", {}));
byId("calibrate").addEventListener("click", () => begin("/rag/calibrate", { apply: true }));
byId("stop").addEventListener("click", () => running && call("POST", `/api/tasks/${running}/cancel`, {}).catch(complain));

reload().then(goOn).catch((error) => showError(byId("questions-error"), error));
