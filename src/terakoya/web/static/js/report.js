// The report card: what the run changed, in words, figures with their intervals, and examples.

import { el, icon } from "./dom.js";
import { canaryText, keptSection } from "./canaries.js";
import { bytes, count, decimal, duration, percent } from "./format.js";
import { _, fill, word } from "./i18n.js";
import { score } from "./score.js";

const TONES = { better: "good", worse: "bad" };
const SHARES = new Set(["exact_match", "preference_accuracy"]);

export function showReport(place, run) {
  const { report } = run;
  const { heldout } = report;
  const parts = [
    head(run),
    el("div", { class: "score-grid" },
      ...(heldout.exact_match ? [exactScore(heldout)] : []),
      ...pairScores(heldout),
      ...textScores(heldout),
      score(_("Loss"), heldout.loss, { format: (value) => decimal(value, 3), scale: null, isMoreBetter: false, explain: _("How surprised the model is by the expected answers; lower is better") }),
    ),
    keptSection(report),
    facts(report),
    labelTable(report),
    heldout.exact_match ? examples(report) : null,
  ];
  place.replaceChildren(...parts.filter(Boolean));
  place.hidden = false;
}

function exactScore(heldout) {
  const isLabels = heldout.answers === "labels";
  const explain = isLabels ? _("Answers that name the right label") : _("Answers that match the expected one word for word");
  return score(isLabels ? _("Label accuracy") : _("Exactly right"), heldout.exact_match, { format: percent, formatChange: points, scale: [0, 1], isMoreBetter: true, explain });
}

/** Of preference pairs: how often the better answer is the likelier. */
function pairScores(heldout) {
  if (!heldout.preference_accuracy) return [];
  return [score(_("Better answer preferred"), heldout.preference_accuracy, { format: percent, formatChange: points, scale: [0, 1], isMoreBetter: true, explain: _("Pairs in which the model finds the better answer likelier, token for token") })];
}

/** How near written answers come to the expected ones, where those are texts. */
function textScores(heldout) {
  if (!heldout.chrf) return [];
  const of = { count: count(heldout.written) };
  const options = { format: (value) => decimal(value, 3), scale: [0, 1], isMoreBetter: true };
  return [
    score("chrF", heldout.chrf, { ...options, explain: _("Overlap of letters with the expected text, of %(count)s answers", of) }),
    score(_("Token F1"), heldout.token_f1, { ...options, explain: _("Overlap of words with the expected text (of characters in Japanese), of %(count)s answers", of) }),
  ];
}

/** For a run that ended well without held-out examples to judge by. */
export function showUnjudged(place, run) {
  place.replaceChildren(el("div", { class: "verdict" }, el("h2", { id: "report-title" }, _("Trained, but not judged: no examples were held out.")), modelLinks(run)));
  place.hidden = false;
}

function modelLinks(run) {
  const links = el("div", { class: "report-links" });
  if (run.model_id) {
    links.append(
      el("a", { class: "btn btn-primary", href: `/try?models=${run.resolved.model},${run.model_id}` }, _("Try both side by side")),
      el("a", { class: "btn btn-quiet", href: `/chat?model=${run.model_id}` }, _("Chat with it")),
      el("a", { class: "btn btn-quiet", href: "/models" }, _("See it among the models")),
      run.resolved.chain ? el("a", { class: "btn btn-quiet", href: `/chains/${run.resolved.chain}` }, _("What earlier tasks kept")) : "",
      el("a", { class: "btn btn-quiet", href: `/api/models/${run.model_id}/card`, download: `${run.name}.md` }, _("Model card")),
    );
  }
  return links;
}

function head(run) {
  const { report } = run;
  const tone = TONES[report.verdict.code] ?? "neutral";
  return el("div", { class: `verdict verdict-${tone}` },
    el("p", { class: "verdict-kicker" }, _("Report card")),
    el("h2", { id: "report-title" }, verdictText(report)),
    ...(report.canaries ?? []).map((canary) => el("p", { class: "verdict-kept" }, canaryText(canary))),
    el("p", { class: "verdict-line" }, _("Judged on %(n)s examples it did not learn from.", { n: count(report.heldout.examples) })),
    modelLinks(run),
  );
}

/** The verdict in the reader's language; the server's English for a code this page does not know. */
function verdictText({ verdict }) {
  const key = `${verdict.code}.${verdict.metric}`;
  const text = word("verdict", key);
  if (text === key) return verdict.text;
  const format = SHARES.has(verdict.metric) ? percent : (value) => decimal(value, 3);
  return fill(text, { before: format(verdict.before), after: format(verdict.after) });
}

/** A difference of two shares, in percentage points. */
function points(value) {
  return _("%(n)s points", { n: decimal(value * 100, 1) });
}

function facts(report) {
  const { cost = {}, flips = {} } = report;
  const asked = [
    [_("Now right"), `+${count(flips.gained ?? 0)}`],
    [_("Now wrong"), `−${count(flips.lost ?? 0)}`],
  ];
  const entries = [
    ...(report.heldout.exact_match ? asked : []),
    [_("Time in all"), duration(cost.seconds)],
    [_("Training"), duration(cost.training_seconds)],
    ...(Number.isFinite(cost.watching_seconds) ? [[_("Looking on the way"), duration(cost.watching_seconds)]] : []),
    [_("Peak memory"), bytes(cost.peak_rss_bytes)],
    [_("Tokens trained"), Number.isFinite(cost.trained_tokens) ? count(cost.trained_tokens) : "–"],
    [_("Tokens/s"), Number.isFinite(cost.tokens_per_second) ? count(cost.tokens_per_second) : "–"],
  ];
  return el("dl", { class: "tiles tiles-wide card-plain" }, ...entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** Right answers label by label, where the answers are labels. */
function labelTable(report) {
  if (!report.labels?.length) return null;
  const head = [_("Label"), _("Examples"), _("Right before"), _("Right after")];
  const rows = report.labels.map((row) => el("tr", {}, el("th", { scope: "row" }, row.label), ...[row.examples, row.before, row.after].map((value) => el("td", {}, count(value)))));
  return el("section", { class: "card-plain" },
    el("details", { class: "quiet-details" },
      el("summary", {}, _("Label by label, those that lost most first")),
      el("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": _("Label by label, those that lost most first") },
        el("table", { class: "table table-sm config" }, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows)),
      ),
    ),
  );
}

function examples(report) {
  const all = report.examples ?? [];
  const kinds = [
    ["all", _("All"), () => true],
    ["gained", _("Now right"), (each) => !each.before_exact && each.after_exact],
    ["lost", _("Now wrong"), (each) => each.before_exact && !each.after_exact],
    ["wrong", _("Still wrong"), (each) => !each.before_exact && !each.after_exact],
  ];
  const list = el("div", { class: "examples" });
  const show = (test) => {
    const chosen = all.filter(test);
    list.replaceChildren(...(chosen.length ? chosen.map(example) : [el("p", { class: "form-text" }, _("None."))]));
  };
  const buttons = kinds.map(([, label, test], index) =>
    el("button", { class: `btn btn-filter${index === 0 ? " active" : ""}`, type: "button", "aria-pressed": index === 0 ? "true" : "false",
      onclick: (event) => {
        for (const button of buttons) {
          const isChosen = button === event.currentTarget;
          button.classList.toggle("active", isChosen);
          button.setAttribute("aria-pressed", String(isChosen));
        }
        show(test);
      } }, `${label} ${count(all.filter(test).length)}`));
  show(kinds[0][2]);
  return el("section", { class: "card-plain", "aria-labelledby": "examples-title" },
    el("div", { class: "examples-head" }, el("h3", { id: "examples-title" }, _("Examples side by side")), el("div", { class: "filters", role: "group", "aria-label": _("Which examples") }, ...buttons)),
    all.length < report.heldout.examples ? el("p", { class: "form-text" }, _("%(shown)s of %(all)s held-out examples, those that changed first.", { shown: count(all.length), all: count(report.heldout.examples) })) : null,
    list,
  );
}

function example(each) {
  return el("article", { class: "example" },
    el("div", { class: "example-prompt" }, el("span", { class: "turn-number" }, String(each.row)), el("span", { class: "turn-text" }, promptText(each.prompt))),
    el("div", { class: "example-answers" },
      answer(_("Expected"), each.reference, null),
      answer(_("Before"), said(each.before, each.before_cut, each.before_exact, each.reference), each.before_exact),
      answer(_("After"), said(each.after, each.after_cut, each.after_exact, each.reference), each.after_exact),
    ),
  );
}

/** What the model said; an answer that was only scored is known in words only if it was right. */
function said(answer, isCut, isExact, reference) {
  if (answer === null) return isExact ? reference : _("(not shown)");
  return isCut ? `${answer} …` : answer;
}

/** The prompt as text, or as the messages it was. */
function promptText(prompt) {
  if (typeof prompt === "string") return prompt;
  return prompt.map((message) => message.content).join("\n");
}

function answer(label, text, isExact) {
  const mark = isExact === null ? null : el("span", { class: isExact ? "tick tick-good" : "tick tick-bad" }, icon(isExact ? "check" : "cross"), el("span", { class: "visually-hidden" }, isExact ? _("right") : _("wrong")));
  return el("div", { class: "example-answer" }, el("span", { class: "example-label" }, label, mark), el("span", { class: "turn-text" }, text || _("(empty)")));
}
