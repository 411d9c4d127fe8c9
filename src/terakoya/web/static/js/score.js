// One figure before and after, on a track with its interval, and whether the change is clear.

import { el } from "./dom.js";
import { _ } from "./i18n.js";

export function score(title, figures, { format, formatChange = format, scale, isMoreBetter, explain }) {
  const { before, after, difference } = figures;
  const [low, high] = scale ?? rangeOf(before, after);
  const hasInterval = difference.low !== null && difference.high !== null;
  const isClear = hasInterval && (difference.low > 0 || difference.high < 0);
  const isBetter = isMoreBetter ? difference.value > 0 : difference.value < 0;
  const tone = !isClear ? "neutral" : isBetter ? "good" : "bad";
  return el("section", { class: "card-plain score" },
    el("h3", {}, title),
    el("p", { class: "score-explain" }, explain),
    el("div", { class: "score-values" },
      el("span", { class: "score-before" }, format(before.value)),
      el("span", { class: "score-arrow", "aria-label": _("to") }, "→"),
      el("span", { class: "score-after" }, format(after.value)),
      el("span", { class: `score-change tone-${tone}` }, signed(difference.value, formatChange)),
    ),
    bar(_("Before"), before, low, high, format, "before"),
    bar(_("After"), after, low, high, format, "after"),
    el("p", { class: "score-interval" }, hasInterval ? intervalText(difference, formatChange, isClear) : _("Too few examples for an interval.")),
  );
}

function intervalText(difference, format, isClear) {
  const limits = { low: signed(difference.low, format), high: signed(difference.high, format) };
  return isClear
    ? _("The change lies between %(low)s and %(high)s (95% interval).", limits)
    : _("The change lies between %(low)s and %(high)s (95% interval): it may be chance.", limits);
}

function rangeOf(before, after) {
  const high = Math.max(before.high ?? 0, after.high ?? 0, before.value, after.value);
  return [0, high * 1.05 || 1];
}

function signed(value, format) {
  return `${value > 0 ? "+" : value < 0 ? "−" : "±"}${format(Math.abs(value))}`;
}

/** A value on a track with its interval. */
function bar(label, figure, low, high, format, kind) {
  const at = (value) => Math.min(100, Math.max(0, ((value - low) / (high - low)) * 100));
  const hasInterval = figure.low !== null && figure.high !== null;
  const interval = hasInterval ? `${format(figure.low)} – ${format(figure.high)}` : "";
  const fillPart = el("span", { class: `track-fill track-${kind}` });
  fillPart.style.width = `${at(figure.value)}%`;
  const range = hasInterval ? el("span", { class: "track-range" }) : null;
  if (range) {
    range.style.left = `${at(figure.low)}%`;
    range.style.width = `${at(figure.high) - at(figure.low)}%`;
  }
  return el("div", { class: "track-row" },
    el("span", { class: "track-label" }, label),
    el("span", { class: "track", role: "img", "aria-label": `${label}: ${format(figure.value)} (${interval})` }, fillPart, range),
    el("span", { class: "track-text" }, interval),
  );
}
