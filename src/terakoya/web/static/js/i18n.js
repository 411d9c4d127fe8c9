// Texts in the reader's language, from the page's data block. An English text is its own key.

import { FINDINGS } from "./findings.js";

const messages = JSON.parse(document.getElementById("messages").textContent);

export const language = document.documentElement.lang;

/** Return the text; %(name)s is filled from values. */
export function _(message, values = {}) {
  return fill(messages[message] ?? message, values);
}

export function fill(text, values) {
  return text.replace(/%\((\w+)\)s/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/**
 * Return a message of the server for the reader. The server speaks English, with the values that matter; in another
 * language a headline says first what kind of message it is ("error" or "warning", and its stable code).
 */
export function explain(kind, code, message) {
  const headline = messages[`${kind}.${code}`];
  return language === "en" || !headline ? message : `${headline}\n${finding(message)}`;
}

/** Return what was found about a file in the reader's language, with the values it came with. */
export function finding(message) {
  for (const known of FINDINGS) {
    const match = message.match(new RegExp(`^${patternOf(known)}$`, "s"));
    if (match) return _(known, match.groups);
  }
  return message;
}

const patternOf = (text) => text.split(/%\((\w+)\)s/).map((part, index) => (index % 2 ? `(?<${part}>.+)` : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))).join("");

/** Return the text of a word of the shared vocabulary, such as phase.training; the bare word if it has none. */
export function word(kind, value) {
  return messages[`${kind}.${value}`] ?? String(value);
}
