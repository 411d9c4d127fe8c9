// What the check of a file of training data found, for people: bad rows with reason and fix, repeats, overlap, lengths.

import { el } from "./dom.js";
import { bytes, count } from "./format.js";
import { _, fill, word } from "./i18n.js";

/** Return the elements that show a report. */
export function reportView(report) {
  return [
    el("p", { class: "form-text" }, summary(report)),
    ...badRows(report),
    ...pairs(report, "repeats", _("Rows that repeat an earlier row exactly")),
    ...pairs(report, "overlap", _("Held-out rows whose prompt a training row has too")),
    ...longAnswers(report),
    ...Object.entries(report.characters).map(([part, lengths]) => histogram(part, lengths)),
  ];
}

/** Return the table of bad rows, and how many there are besides those shown; nothing without bad rows. */
export function badRows(report) {
  const notes = report.bad_rows;
  if (!notes.length) return [];
  const place = report.place === "line" ? _("Line") : _("Row");
  const cells = (note) => [count(note.row), sentence("problem", note, note.reason), sentence("remedy", note, note.fix)];
  const table = el(
    "table",
    { class: "table config bad-rows" },
    el("thead", {}, el("tr", {}, ...[place, _("Reason"), _("What helps")].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...notes.map((note) => el("tr", {}, ...cells(note).map((text) => el("td", {}, text))))),
  );
  const more = report.rows.bad > notes.length ? _("The first %(shown)s of %(bad)s bad rows.", { shown: notes.length, bad: count(report.rows.bad) }) : null;
  return [el("div", { class: "table-scroll", tabindex: "0" }, table), more && el("p", { class: "form-text" }, more)].filter(Boolean);
}

function sentence(kind, note, otherwise) {
  const text = word(kind, note.code);
  return text === note.code ? otherwise : fill(text, note.values);
}

function summary(report) {
  const { file, rows } = report;
  const packing = file.compression ? ` + ${file.compression}` : "";
  const found = _("%(read)s rows read, %(bad)s of them bad", { read: count(rows.read), bad: count(rows.bad) });
  return `${file.name ? `${file.name} · ` : ""}${file.format}${packing} · ${file.encoding} · ${bytes(file.size_bytes)} · ${found}`;
}

function pairs(report, name, title) {
  const { rows, shown } = report[name];
  if (!rows) return [];
  const text = shown.map(({ row, other }) => `${row} = ${other}`).join(", ") + (rows > shown.length ? ", …" : "");
  return [el("p", { class: "report-line" }, el("strong", {}, `${title}: ${count(rows)}`), ` (${text})`)];
}

function longAnswers(report) {
  const { rows, characters, longest } = report.long_answers;
  if (!rows) return [];
  const title = _("Answers of more than %(n)s characters", { n: count(characters) });
  const text = longest.map((entry) => `${entry.row} (${count(entry.characters)})`).join(", ");
  return [el("p", { class: "report-line" }, el("strong", {}, `${title}: ${count(rows)}`), ` (${text})`)];
}

function histogram(part, lengths) {
  const most = Math.max(...lengths.histogram.map((bin) => bin.rows), 1);
  const figures = ["p50", "p90", "p99", "max"].map((name) => `${name} ${count(lengths[name])}`).join(" · ");
  const title = _("Characters of each %(part)s", { part: word("part", part) });
  const bars = lengths.histogram.map((bin) => {
    const bar = el("span", { class: "length-bar", title: `${count(bin.start)}–${count(bin.end - 1)}: ${count(bin.rows)}` });
    bar.style.height = `${bin.rows ? Math.max(3, (100 * bin.rows) / most) : 0}%`;
    return bar;
  });
  return el(
    "figure",
    { class: "lengths" },
    el("figcaption", {}, el("strong", {}, title), ` · ${figures}`),
    el("div", { class: "length-bars", role: "img", "aria-label": `${title}: ${figures}` }, ...bars),
    el("div", { class: "length-ends" }, el("span", {}, count(lengths.histogram[0]?.start ?? 0)), el("span", {}, count(lengths.max))),
  );
}
