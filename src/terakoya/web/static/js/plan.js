// The plan beside the training form: what the run would need, whether it can start, and rows as the model will see
// them. Asks the server anew when the form changes; measures the machine only when asked to.

import { request as send } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { bytes, count, duration, percent } from "./format.js";
import { _, explain } from "./i18n.js";

const QUIET_MS = 700;
let newest = 0;
let timer = null;
let latest = null;

/** Keep the plan up to date with what the form asks for; ``requested`` returns the request or null. */
export function setUpPlan(form, requested) {
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => refresh(requested), QUIET_MS);
  };
  form.addEventListener("input", later);
  form.addEventListener("change", later);
  byId("plan-measure").addEventListener("click", () => refresh(requested, true));
  later();
  return later;
}

async function refresh(requested, measure = false) {
  const asked = ++newest;
  const body = requested();
  if (!body) return;
  const panel = byId("plan");
  panel.setAttribute("aria-busy", "true");
  byId("plan-measure").disabled = true;
  say(measure ? _("Measuring this machine …") : _("Reading the examples …"));
  let plan = null;
  let failed = null;
  try {
    plan = await ask(body, measure);
  } catch (error) {
    failed = error;
  }
  if (asked !== newest) return;
  panel.setAttribute("aria-busy", "false");
  byId("plan-measure").disabled = false;
  if (failed) showFailure(failed);
  else show(plan);
}

async function ask(body, measure) {
  latest?.abort();
  latest = new AbortController();
  const response = await send("POST", `/api/train/plan?measure=${measure}`, body, latest.signal);
  return response.json();
}

function say(text, state = null) {
  const place = byId("plan-state");
  place.textContent = text;
  place.className = state ? `plan-state plan-${state}` : "plan-state";
}

function showFailure(error) {
  if (error.name === "AbortError") return;
  say(_("This cannot be started as it is."), "not-ready");
  byId("plan-facts").hidden = true;
  byId("plan-findings").replaceChildren(finding(error.message, "problem"));
}

function show(plan) {
  say(plan.ready ? _("Ready to start.") : _("This cannot be started as it is."), plan.ready ? "ready" : "not-ready");
  const problems = plan.problems.map((each) => finding(explain("plan", each.code, each.message), "problem"));
  const warnings = plan.warnings.map((each) => finding(explain("plan", each.code, each.message), "warning"));
  byId("plan-findings").replaceChildren(...problems, ...warnings);
  byId("plan-facts").hidden = false;
  byId("plan-measure").hidden = plan.basis !== "shape" || plan.time !== null;
  for (const [name, text] of Object.entries(facts(plan))) document.querySelector(`[data-plan=${name}]`).textContent = text;
  showSamples(plan.samples);
}

function finding(text, kind) {
  return el("li", { class: `plan-finding plan-${kind} preline` }, kind === "problem" ? icon("cross") : "", el("span", {}, text));
}

function facts({ memory, time, steps, tokens, disk, basis }) {
  const about = basis === "shape" ? _("at most about %(need)s, %(have)s free", memoryOf(memory)) : _("about %(need)s, %(have)s free", memoryOf(memory));
  return {
    memory: memory ? about : "–",
    time: time ? _("about %(time)s", { time: duration(time.seconds) }) : _("not known yet"),
    steps: steps ? count(steps.total) : "–",
    batch: steps ? atOnce(steps) : "–",
    tokens: _("half have up to %(p50)s, the longest %(max)s", { p50: count(tokens.p50), max: count(tokens.max) }),
    disk: _("%(need)s, %(have)s free", { need: bytes(disk.needed_bytes), have: bytes(disk.free_bytes) }),
  };
}

const memoryOf = (memory) => (memory ? { need: bytes(memory.peak), have: bytes(memory.available) } : {});

function atOnce(steps) {
  const text = _("%(tokens)s tokens, %(parts)s parts a step", { tokens: count(steps.micro_batch_tokens), parts: count(Math.max(1, Math.round(steps.micro_batches))) });
  const again = _("activations recomputed");
  return steps.gradient_checkpointing ? `${text} · ${again}` : text;
}

function showSamples(samples) {
  byId("mask-viewer").hidden = samples.length === 0;
  byId("mask-samples").replaceChildren(...samples.map(sample));
}

function sample(row) {
  const share = percent(row.trained_tokens / row.tokens, 0);
  const head = _("Row %(row)s: %(tokens)s tokens, %(share)s learned", { row: count(row.row), tokens: count(row.tokens), share });
  const gap = row.omitted_tokens ? el("span", { class: "mask-gap" }, _("… %(n)s tokens not shown …", { n: count(row.omitted_tokens) })) : "";
  return el("figure", { class: "mask-sample" }, el("figcaption", {}, head), el("div", { class: "mask-text", tabindex: "0" }, ...row.beginning.map(token), gap, ...row.end.map(token)));
}

function token({ text, trained }) {
  return trained ? el("mark", { class: "mask-trained" }, text) : el("span", { class: "mask-read" }, text);
}
