// Where a document was lost on its way into an answer: asked under the answer, told in words.

import { call } from "./api.js";
import { el } from "./dom.js";
import { decimal } from "./format.js";
import { _ } from "./i18n.js";

/** Return the box under an answer; body is the question as it was sent. */
export function whyBox(body) {
  const picker = el("select", { class: "form-select", "aria-label": _("Document that was missed") });
  const quote = el("input", { class: "form-control", maxlength: "2000", autocomplete: "off", placeholder: _("Words of the passage, if you know them"), "aria-label": _("Words of the passage, if you know them") });
  const told = el("div", { role: "status" });
  const form = el("form", { class: "field-grid mt-2" }, picker, quote, el("button", { class: "btn btn-quiet", type: "submit" }, _("Show where it was lost")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    tell(body, picker.value, quote.value.trim(), told);
  });
  const box = el("details", { class: "quiet-details" }, el("summary", {}, _("Is a passage missing?")), form, told);
  box.addEventListener("toggle", () => box.open && fill(picker, body.collection, told), { once: true });
  return box;
}

async function fill(picker, collection, told) {
  try {
    const { documents } = await call("GET", `/rag/documents?collection=${encodeURIComponent(collection)}`);
    picker.replaceChildren(...documents.map(({ id, title }) => el("option", { value: id }, title)));
  } catch (error) {
    told.replaceChildren(el("p", { class: "text-danger" }, error.message));
  }
}

async function tell(body, document, quote, told) {
  const asked = { query: body.query, collection: body.collection, filters: body.filters, document_id: document, quote: quote || null };
  try {
    const found = await call("POST", "/rag/why", asked);
    const ranks = [
      [_("by meaning"), found.dense_rank, found.dense_score],
      [_("by words"), found.sparse_rank, found.sparse_score],
      [_("together"), found.fused_rank, found.fused_score],
    ].map(([name, rank, score]) => el("li", {}, rank === null ? _("%(name)s: not found", { name }) : _("%(name)s: rank %(rank)s, score %(score)s", { name, rank, score: decimal(score, 3) })));
    told.replaceChildren(el("p", { class: "mt-2 mb-1" }, stages()[found.lost_at] ?? found.lost_at), el("ul", {}, ...(found.passage_id ? ranks : [])), el("p", { class: "form-text" }, found.reason));
  } catch (error) {
    told.replaceChildren(el("p", { class: "text-danger preline" }, error.message));
  }
}

const stages = () => ({
  document: _("The document cannot be asked yet."),
  filter: _("What you chose by leaves the document out."),
  search: _("Neither search found it early enough."),
  top_k: _("It was found, but behind the passages that are shown."),
  decision: _("It was shown, but the documents were judged not to hold the answer."),
  reading: _("It was shown, but answers are made of passages further ahead."),
  sentences: _("It was read, but other sentences fit the question better."),
  nowhere: _("It was not lost: the quoted answer uses it."),
});
