// One training example as a short conversation.

import { el } from "./dom.js";
import { _, word } from "./i18n.js";

export function conversation(row) {
  const turns = row.messages.map((message) =>
    el("div", { class: `turn turn-${message.role}` }, el("span", { class: "turn-role" }, word("role", message.role)), el("span", { class: "turn-text" }, message.content)),
  );
  const number = el("span", { class: "turn-number" }, String(row.row));
  const split = row.split === "heldout" ? el("span", { class: "tag" }, _("held out")) : null;
  return el("div", { class: "conversation" }, el("div", { class: "conversation-head" }, number, split ?? ""), el("div", { class: "turns" }, ...turns));
}
