// The side panel that shows a document's stored text, with a quote marked. Offsets are code points of that text.

import { call } from "./api.js";
import { byId, el, showError } from "./dom.js";
import { _ } from "./i18n.js";

const AROUND = 1200;
const MORE = 4000;

let shown = null;
let opener = null;

/** Open the panel at a quote ({document_id, title, page, heading, start, end}), or at the beginning without one. */
export async function openText(place) {
  const { start = 0, end = start } = place;
  const isQuote = end > start;
  shown = { id: place.document_id, start, end, from: isQuote ? Math.max(0, start - AROUND) : 0, characters: [], total: 0 };
  byId("text-panel-title").textContent = place.title;
  byId("text-panel-meta").textContent = whereabouts(place);
  byId("text-panel-file").href = `/rag/documents/${encodeURIComponent(place.document_id)}/file`;
  byId("text-panel-text").replaceChildren();
  byId("text-panel-before").hidden = true;
  byId("text-panel-after").hidden = true;
  showError(byId("text-panel-error"), null);
  opener = document.activeElement;
  window.bootstrap.Offcanvas.getOrCreateInstance(byId("text-panel")).show();
  await load(shown.from, isQuote ? end + AROUND : MORE, (characters) => (shown.characters = characters));
  byId("text-panel-text").querySelector("mark")?.scrollIntoView({ block: "center" });
}

/** Page and headings of a passage, as one line. */
export function whereabouts({ page, heading }) {
  const parts = page ? [_("p. %(n)s", { n: page })] : [];
  return [...parts, ...(heading ?? [])].join(" › ");
}

async function load(from, to, take) {
  const asked = shown;
  const text = byId("text-panel-text");
  text.setAttribute("aria-busy", "true");
  try {
    const answer = await call("GET", `/rag/documents/${encodeURIComponent(asked.id)}/text?start=${from}&end=${to}`);
    if (asked !== shown) return;
    asked.total = answer.characters;
    take(Array.from(answer.text));
    render();
  } catch (error) {
    if (asked === shown) showError(byId("text-panel-error"), error);
  } finally {
    text.setAttribute("aria-busy", "false");
  }
}

function render() {
  const { characters, from, start, end, total } = shown;
  const part = (a, b) => characters.slice(Math.max(0, a - from), Math.max(0, b - from)).join("");
  const until = from + characters.length;
  const mark = end > start ? el("mark", {}, part(start, end)) : null;
  byId("text-panel-text").replaceChildren(...[part(from, start), mark, part(end, until)].filter(Boolean));
  byId("text-panel-before").hidden = from === 0;
  byId("text-panel-after").hidden = until >= total;
  if (document.activeElement?.hidden) byId("text-panel-text").focus({ preventScroll: true });
}

byId("text-panel-before").addEventListener("click", () => {
  const from = Math.max(0, shown.from - MORE);
  load(from, shown.from, (characters) => {
    shown.characters = [...characters, ...shown.characters];
    shown.from = from;
  });
});

byId("text-panel-after").addEventListener("click", () => {
  const until = shown.from + shown.characters.length;
  load(until, until + MORE, (characters) => (shown.characters = [...shown.characters, ...characters]));
});

// Bootstrap gives the focus back only to a button that it opened the panel by.
byId("text-panel").addEventListener("hidden.bs.offcanvas", () => {
  if (document.activeElement === document.body) opener?.focus({ preventScroll: true });
});

// Bootstrap hears Escape only while the focus is inside; it is not yet while the panel opens, nor once a button is gone.
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") window.bootstrap.Offcanvas.getInstance(byId("text-panel"))?.hide();
});
