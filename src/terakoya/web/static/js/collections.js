// The collection picker: what collections there are, and the one that was chosen last.

import { call } from "./api.js";
import { el } from "./dom.js";
import { count } from "./format.js";
import { _ } from "./i18n.js";

const REMEMBERED = "terakoya_collection";
const FIRST = "default";

export const pathOf = (name) => `/rag/collections/${encodeURIComponent(name)}`;

/** Fill a select with the collections' names, the first one always among them. Returns the collections by name. */
export async function fillCollections(select, wanted) {
  const { collections } = await call("GET", "/rag/collections");
  const known = new Map(collections.map((collection) => [collection.name, collection]));
  const names = [...new Set([FIRST, ...known.keys()])];
  select.replaceChildren(
    ...names.map((name) => el("option", { value: name }, labelOf(name, known.get(name)?.documents ?? 0))),
  );
  const choices = [wanted, new URLSearchParams(location.search).get("collection"), localStorage.getItem(REMEMBERED), FIRST];
  select.value = choices.find((name) => names.includes(name));
  remember(select.value);
  return known;
}

const labelOf = (name, documents) => (documents === 1 ? _("%(name)s · 1 document", { name }) : _("%(name)s · %(n)s documents", { name, n: count(documents) }));

export function remember(name) {
  localStorage.setItem(REMEMBERED, name);
}
