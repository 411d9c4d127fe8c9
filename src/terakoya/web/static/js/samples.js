// Answers to the same prompts as the model learns, the newest first.

import { byId, el } from "./dom.js";
import { count } from "./format.js";
import { _ } from "./i18n.js";

const SHOWN = 20;

export class Samples {
  constructor() {
    this.steps = new Map();
  }

  take(event) {
    this.steps.set(event.step, event);
    for (const [step, known] of this.steps) if (step > event.step && known.attempt < event.attempt) this.steps.delete(step);
    byId("samples").hidden = false;
    const events = [...this.steps.values()].sort((a, b) => b.step - a.step);
    byId("samples-list").replaceChildren(...event.samples.map((sample, index) => prompt(sample, events, index)));
  }
}

function prompt(sample, events, index) {
  const answers = events.slice(0, SHOWN).map((event) => {
    const { text, is_cut: isCut } = event.samples[index];
    return el("li", {}, el("span", { class: "sample-step" }, _("Step %(n)s", { n: count(event.step) })), el("span", { class: "turn-text" }, (text || _("(empty)")) + (isCut ? " …" : "")));
  });
  return el("article", { class: "sample-prompt" },
    el("p", { class: "turn-text" }, sample.prompt),
    sample.reference ? el("p", { class: "form-text" }, `${_("Expected")}: ${sample.reference}`) : null,
    el("ol", { class: "sample-answers" }, ...answers),
  );
}
