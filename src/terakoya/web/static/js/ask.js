// A question to the documents; its answer grows as it comes, and earlier ones stay below it.

import { request, serverSent, streamError } from "./api.js";
import { AnswerView } from "./answer.js";
import { fillCollections, remember } from "./collections.js";
import { byId, showError } from "./dom.js";
import { count } from "./format.js";
import { _ } from "./i18n.js";
import "./shell.js";

const form = byId("ask-form");
const question = byId("question");
const EARLIER = 10;
let aborter = null;
let earlier = [];

form.addEventListener("submit", ask);
byId("stop").addEventListener("click", () => aborter?.abort());
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!byId("ask").disabled) form.requestSubmit();
});
byId("collection").addEventListener("change", () => {
  earlier = [];
  remember(byId("collection").value);
  hint();
});

byId("mode").addEventListener("change", fitModel);
fitModel();

/** Quoting needs no model; writing needs one that is named. */
function fitModel() {
  const [automatic, first] = byId("model").options;
  byId("model").disabled = byId("mode").value === "extractive";
  automatic.disabled = byId("mode").value === "generative";
  if (automatic.disabled && automatic.selected) first.selected = true;
}

let known = new Map();
fillCollections(byId("collection")).then((collections) => {
  known = collections;
  hint();
}, (error) => showError(byId("ask-error"), error));

function hint() {
  const name = byId("collection").value;
  const documents = known.get(name)?.documents ?? 0;
  byId("ask-hint").hidden = false;
  byId("ask-hint").textContent = documents
    ? documents === 1 ? _("Asking 1 document of the collection %(name)s.", { name }) : _("Asking %(n)s documents of the collection %(name)s.", { n: count(documents), name })
    : _("The collection %(name)s holds no documents yet; add some first.", { name });
}

async function ask(event) {
  event.preventDefault();
  showError(byId("ask-error"), null);
  working(true);
  aborter = new AbortController();
  const body = { query: question.value, collection: byId("collection").value, mode: byId("mode").value, model: byId("model").disabled ? null : byId("model").value || null, filters: filters(), earlier: earlier.slice(-EARLIER) };
  const view = new AnswerView(body);
  byId("answers").prepend(view.element);
  try {
    const response = await request("POST", "/rag/query/stream", body, aborter.signal);
    for await (const piece of serverSent(response)) {
      if (piece.type === "error") throw streamError(piece);
      view.take(piece);
      if (piece.type === "done") earlier.push(piece.answer.details?.rewritten ?? body.query);
    }
    view.end();
  } catch (error) {
    if (error.name === "AbortError") view.end(_("Stopped."));
    else {
      view.element.remove();
      showError(byId("ask-error"), error);
    }
  }
  working(false);
}

/** Which documents are asked; null for all of them. */
function filters() {
  const value = (name) => byId(`filter-${name}`).value.trim();
  const tags = value("tags").split(/[,、，]/).map((tag) => tag.trim()).filter(Boolean);
  const given = { language: value("language") ? [value("language")] : null, type: value("type") ? [value("type")] : null, tags: tags.length ? tags : null, date_from: value("date_from") || null, date_to: value("date_to") || null };
  const chosen = Object.fromEntries(Object.entries(given).filter(([, one]) => one));
  return Object.keys(chosen).length ? chosen : null;
}

function working(isWorking) {
  byId("ask").disabled = isWorking;
  byId("stop").hidden = !isWorking;
}
