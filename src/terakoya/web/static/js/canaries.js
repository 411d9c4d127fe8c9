// What the run left of the language the model knew before: its loss on general text, language by language.

import { el } from "./dom.js";
import { decimal, percent } from "./format.js";
import { _, fill, word } from "./i18n.js";
import { score } from "./score.js";

export const signedPercent = (value) => (Number.isFinite(value) ? `${value > 0 ? "+" : value < 0 ? "−" : "±"}${percent(Math.abs(value))}` : "–");

/** One language in words; an unknown code goes by its name. */
export function canaryText(canary) {
  const values = { language: word("language", canary.language), change: signedPercent(canary.change?.value), before: decimal(canary.before.value, 2) };
  return fill(word("canary", canary.code), values);
}

/** The figures of every language that the model had before, or nothing for a report without canaries. */
export function keptSection(report) {
  const canaries = (report.canaries ?? []).filter((canary) => canary.is_applicable);
  if (!canaries.length) return null;
  return el("div", { class: "score-grid" }, ...canaries.map(card));
}

function card(canary) {
  const { before, after, change } = canary;
  const inBits = (share) => share === null ? null : share * before.value;
  const difference = { value: inBits(change.value), low: inBits(change.low), high: inBits(change.high) };
  const format = (value) => decimal(value, 3);
  const explain = _("Bits per byte of %(n)s passages that have nothing to do with the task; lower is better", { n: canary.passages });
  return score(_("General text: %(language)s", { language: word("language", canary.language) }), { before, after, difference }, { format, scale: null, isMoreBetter: false, explain });
}
