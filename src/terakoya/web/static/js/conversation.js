// One training example: a short conversation, with the worse answer of a preference, or running text.

import { el } from "./dom.js";
import { _, word } from "./i18n.js";

export function conversation(row) {
  const turns = (row.messages ?? []).map((message) => turn(message.role, word("role", message.role), message.content));
  if (row.rejected !== undefined) turns.push(turn("rejected", word("part", "rejected"), row.rejected));
  if (row.text !== undefined) turns.push(turn("text", word("part", "text"), row.text));
  const number = el("span", { class: "turn-number" }, String(row.row));
  const split = row.split === "heldout" ? el("span", { class: "tag" }, _("held out")) : null;
  return el("div", { class: "conversation" }, el("div", { class: "conversation-head" }, number, split ?? ""), el("div", { class: "turns" }, ...turns));
}

const turn = (kind, name, text) => el("div", { class: `turn turn-${kind}` }, el("span", { class: "turn-role" }, name), el("span", { class: "turn-text" }, text));
