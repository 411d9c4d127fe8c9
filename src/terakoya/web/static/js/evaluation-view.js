// One evaluation: the figures of each configuration with their intervals, and how the second compares, in words.

import { el } from "./dom.js";
import { count, decimal, moment, percent } from "./format.js";
import { _ } from "./i18n.js";

const METRICS = { ndcg_at_10: "nDCG@10", recall_at_10: "recall@10", mrr: "MRR" };

/** Return the article of an evaluation or a tuning; its buttons call onDelete and, of a tuning, onUse. */
export function evaluationView(evaluation, { onDelete, onUse }) {
  const { report } = evaluation;
  if (report.coefficients) return calibrationView(evaluation, onDelete);
  if (report.suggested) return tuningView(evaluation, onDelete, onUse);
  const names = report.configurations.map(({ name }) => name);
  const head = el("tr", {}, el("th", { scope: "col" }, _("Figure")), ...names.map((name) => el("th", { scope: "col" }, name)));
  const rows = lines(report.configurations.map(({ figures }) => figures)).map(([name, ...cells]) => el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell))));
  const remove = el("button", { class: "btn btn-quiet btn-sm", type: "button", onclick: onDelete }, _("Delete"));
  return el(
    "article",
    { class: "card-plain", "data-evaluation": evaluation.id },
    el("h2", { class: "h5" }, _("%(name)s: %(n)s questions", { name: evaluation.question_set, n: count(report.questions) })),
    el("p", { class: "form-text" }, moment(evaluation.created_at)),
    ...verdicts(report, names),
    el("div", { class: "table-scroll" }, el("table", { class: "table table-sm" }, el("thead", {}, head), el("tbody", {}, ...rows))),
    report.left_out ? el("p", { class: "form-text" }, _("%(n)s questions could not be judged and were left out.", { n: count(report.left_out) })) : null,
    el("p", { class: "form-text" }, _("In brackets: where the true value lies with 95% confidence. Abstention is judged with the answer left in and taken out.")),
    remove,
  );
}

function calibrationView(evaluation, onDelete) {
  const { report } = evaluation;
  const sides = [report.before, report.fitted_on_the_other_half];
  const rows = [
    [_("Abstention, area under the curve"), "auc", (value) => decimal(value, 3)],
    [_("Answered, of those with an answer"), "kept", (value) => percent(value)],
    [_("Answered, of those without"), "let_through", (value) => percent(value)],
  ].map(([name, key, text]) => el("tr", {}, el("th", { scope: "row" }, name), ...sides.map((side) => el("td", {}, interval(side[key], text)))));
  const head = el("tr", {}, el("th", { scope: "col" }, _("Figure")), el("th", { scope: "col" }, _("before")), el("th", { scope: "col" }, _("calibrated")));
  return el(
    "article",
    { class: "card-plain", "data-evaluation": evaluation.id },
    el("h2", { class: "h5" }, _("%(name)s: abstention calibrated on %(n)s questions", { name: evaluation.question_set, n: count(report.questions) })),
    el("p", { class: "form-text" }, moment(evaluation.created_at)),
    el("div", { class: "table-scroll" }, el("table", { class: "table table-sm" }, el("thead", {}, head), el("tbody", {}, ...rows))),
    el("p", { class: "form-text" }, report.applied ? _("The collection decides so from now on.") : _("Nothing was changed.")),
    el("button", { class: "btn btn-quiet btn-sm", type: "button", onclick: onDelete }, _("Delete")),
  );
}

function tuningView(evaluation, onDelete, onUse) {
  const { report } = evaluation;
  const settings = Object.entries(report.suggested).map(([name, value]) => `${name} ${value}`).join(" · ");
  return el(
    "article",
    { class: "card-plain", "data-evaluation": evaluation.id },
    el("h2", { class: "h5" }, _("%(name)s: settings tuned on %(n)s questions", { name: evaluation.question_set, n: count(report.questions) })),
    el("p", { class: "form-text" }, moment(evaluation.created_at)),
    ...verdicts(report, [_("as it is"), _("tuned")]),
    el("p", {}, _("Best of %(n)s: %(settings)s", { n: count(report.tried), settings })),
    el("p", { class: "form-text" }, _("The gain is of questions that had no part in choosing the settings.")),
    el("div", { class: "row-actions" }, el("button", { class: "btn btn-primary btn-sm", type: "button", onclick: onUse }, _("Use these settings")), el("button", { class: "btn btn-quiet btn-sm", type: "button", onclick: onDelete }, _("Delete"))),
  );
}

function verdicts(report, [first, second]) {
  return Object.entries(report.comparison ?? {}).map(([metric, compared]) => {
    const facts = { first, second, metric: METRICS[metric] ?? labels()[metric] ?? metric, difference: signed(compared.difference.value), p: decimal(compared.p, 3) };
    return el("p", { class: `verdict-line tone-${{ better: "good", worse: "bad" }[compared.verdict] ?? "neutral"}` }, sentence(compared.verdict, facts));
  });
}

function sentence(verdict, facts) {
  if (verdict === "better") return _("%(metric)s: %(second)s is better than %(first)s (%(difference)s, p = %(p)s).", facts);
  if (verdict === "worse") return _("%(metric)s: %(second)s is worse than %(first)s (%(difference)s, p = %(p)s).", facts);
  return _("%(metric)s: no significant difference between %(first)s and %(second)s (%(difference)s, p = %(p)s).", facts);
}

const labels = () => ({
  found_first: _("Found first"),
  answered: _("Answered"),
  correct: _("Right answers"),
  citation_precision: _("Citations that support"),
  refused: _("Refused, rightly"),
});

function lines(figures) {
  const shares = Object.entries(labels()).map(([key, name]) => [name, ...figures.map((one) => interval(one[key], (value) => percent(value)))]);
  return [
    ...Object.entries(METRICS).map(([key, name]) => [name, ...figures.map((one) => interval(one[key], (value) => decimal(value, 3)))]),
    ...shares,
    [_("Abstention, area under the curve"), ...figures.map((one) => interval(one.abstention?.auc, (value) => decimal(value, 3)))],
    [_("Search, ms (half / 95% of the questions)"), ...figures.map((one) => spread(one.latency_ms.search))],
    [_("Answer, ms (half / 95% of the questions)"), ...figures.map((one) => spread(one.latency_ms.answer))],
  ];
}

function interval(figure, text) {
  if (!figure) return "–";
  return figure.low === null ? text(figure.value) : `${text(figure.value)} (${text(figure.low)}–${text(figure.high)})`;
}

const spread = (latency) => (latency ? `${decimal(latency.p50.value, 0)} / ${decimal(latency.p95.value, 0)}` : "–");
const signed = (value) => `${value > 0 ? "+" : ""}${decimal(value, 3)}`;
