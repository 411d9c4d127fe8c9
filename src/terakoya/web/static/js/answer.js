// One answer from the documents: its text with numbered citations that open the passage, what was checked of each,
// or that the documents do not hold it, with what comes nearest.

import { el } from "./dom.js";
import { decimal } from "./format.js";
import { _, fill } from "./i18n.js";
import { openText, whereabouts } from "./text-panel.js";
import { whyBox } from "./why.js";

const MARKER = /\[(\d{1,3})\]/g;
const NEAREST_SHOWN = 3;
const SNIPPET = 220;

export class AnswerView {
  /** body: the question as it is sent. */
  constructor(body) {
    this.asked = body;
    this.hits = [];
    this.text = "";
    this.hasEnded = false;
    this.notice = el("p", { class: "answer-kicker" }, _("Searching …"));
    this.body = el("div", { class: "answer-body", "aria-busy": "true" });
    this.sources = el("div", {});
    this.foot = el("div", { class: "answer-links" });
    this.element = el("article", { class: "card-plain asked", "aria-live": "polite" }, el("h2", { class: "asked-question" }, body.query.trim()), this.notice, this.body, this.sources, this.foot);
  }

  take(event) {
    if (event.type === "hit") this.hits.push(event);
    if (event.type === "token") {
      this.text += event.text;
      this.notice.textContent = _("Answering; not yet checked …");
      this.body.textContent = this.text;
    }
    if (event.type === "done") this.finish(event.answer);
  }

  /** The stream is over; without a finished answer it says why. */
  end(reason) {
    this.body.setAttribute("aria-busy", "false");
    if (this.hasEnded) return;
    const unchecked = this.text ? [_("What is here was not checked.")] : [];
    this.notice.textContent = [reason ?? _("The answer broke off."), ...unchecked].join(" ");
  }

  finish(answer) {
    this.hasEnded = true;
    this.body.setAttribute("aria-busy", "false");
    const details = answer.details ?? {};
    if (answer.verdict === "answered") this.showAnswer(answer);
    else this.showRefusal(answer);
    if (details.rewritten) this.notice.before(el("p", { class: "form-text" }, _("Looked for: %(question)s", { question: details.rewritten })));
    const seconds = details.seconds?.total ?? details.seconds;
    const links = [el("a", { href: `/rag/traces/${encodeURIComponent(answer.trace_id)}`, target: "_blank", rel: "noopener" }, _("How this was found (JSON)"))];
    if (Number.isFinite(seconds)) links.push(el("span", {}, _("%(n)s s", { n: decimal(seconds, 1) })));
    this.foot.replaceChildren(...links);
    this.foot.after(whyBox(this.asked));
  }

  showAnswer(answer) {
    const verified = answer.citations.filter((citation) => citation.verified);
    this.notice.textContent = answer.mode === "generative"
      ? _("Written by %(model)s; each numbered source was checked against its sentence.", { model: answer.model ?? "?" })
      : _("Quoted from your documents, word for word.");
    this.body.replaceChildren(...withChips(answer.answer, answer.citations));
    const items = [...new Map(verified.map((citation) => [citation.number, citation])).values()];
    this.sources.replaceChildren(el("ol", { class: "sources", "aria-label": _("Sources") }, ...items.map(source)));
  }

  showRefusal(answer) {
    this.notice.textContent = "";
    const nearest = (answer.evidence?.length ? answer.evidence : this.hits).slice(0, NEAREST_SHOWN);
    const box = el("div", { class: "refusal" }, el("strong", {}, _("The documents do not hold an answer to this.")), el("p", {}, _("Nothing was made up. Below is what comes nearest; it may not fit.")));
    this.body.replaceChildren(box);
    if (nearest.length) this.sources.replaceChildren(el("h3", { class: "nearest-title" }, _("Nearest passages")), el("ul", { class: "sources nearest" }, ...nearest.map(passage)));
  }
}

/** The answer's text, its markers [n] as buttons where the citation was verified; a failed one gets no number. */
function withChips(text, citations) {
  const byNumber = new Map(citations.filter(({ verified }) => verified).map((citation) => [citation.number, citation]));
  const failed = new Set(citations.filter(({ verified }) => !verified).map(({ number }) => number));
  const parts = [];
  let done = 0;
  for (const match of text.matchAll(MARKER)) {
    const number = Number(match[1]);
    if (!byNumber.has(number) && !failed.has(number)) continue;
    parts.push(text.slice(done, match.index));
    if (byNumber.has(number)) parts.push(chip(byNumber.get(number)));
    done = match.index + match[0].length;
  }
  return [...parts, text.slice(done)];
}

function chip(citation) {
  const label = _("Source %(n)s: %(title)s", { n: citation.number, title: citation.title });
  return el("button", { class: "chip", type: "button", title: `${citation.title} · ${checked(citation)}`, "aria-label": label, onclick: () => openText(citation) }, String(citation.number));
}

function source(citation) {
  const button = el("button", { class: "source", type: "button", onclick: () => openText(citation) }, el("span", { class: "source-title" }, citation.title), el("span", { class: "source-quote" }, shortened(citation.quote)), el("span", { class: "source-check" }, checked(citation)));
  return el("li", {}, el("span", { class: "source-number", "aria-hidden": "true" }, String(citation.number)), button);
}

function passage(hit) {
  const button = el("button", { class: "source", type: "button", onclick: () => openText(hit) }, el("span", { class: "source-title" }, hit.title), el("span", { class: "source-quote" }, shortened(hit.text)), el("span", { class: "source-check" }, whereabouts(hit)));
  return el("li", {}, button);
}

/** What was checked of a citation, no more. */
function checked({ support, page }) {
  const texts = {
    verbatim: page ? _("quoted verbatim from p. %(page)s") : _("quoted verbatim"),
    numbers_and_words: page ? _("numbers and words match p. %(page)s") : _("numbers and words match the passage"),
  };
  return fill(texts[support] ?? support, { page });
}

function shortened(text) {
  const characters = Array.from(text.replace(/\s+/g, " ").trim());
  return characters.length > SNIPPET ? `${characters.slice(0, SNIPPET).join("")}…` : characters.join("");
}
