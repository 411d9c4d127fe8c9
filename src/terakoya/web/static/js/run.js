// The page of one run: follows its events and shows phases, curves, warnings, and in the end the report card.

import { call } from "./api.js";
import { byId, el } from "./dom.js";
import { duration, rate } from "./format.js";
import { _, word, explain } from "./i18n.js";
import { follow } from "./live.js";
import { Curves } from "./curves.js";
import { Order } from "./order.js";
import { MachineCurves } from "./machine-curves.js";
import { PhaseList } from "./phases.js";
import { showReport, showUnjudged } from "./report.js";
import { Samples } from "./samples.js";
import { toast } from "./shell.js";
import { Tiles } from "./tiles.js";

const taskId = byId("run").dataset.task;
const path = `/api/train/${taskId}`;
const FINAL = ["succeeded", "failed", "cancelled"];
const curves = new Curves();
const machine = new MachineCurves();
const samples = new Samples();
const phases = new PhaseList();
const tiles = new Tiles();
const order = new Order(taskId, showState);
let attempt = 1;
let stopFollowing = null;

byId("stop").addEventListener("click", () => {
  const dialog = byId("stop-dialog");
  dialog.returnValue = "";
  dialog.showModal();
});
byId("stop-dialog").addEventListener("close", () => {
  const choice = byId("stop-dialog").returnValue;
  if (choice) stop(choice === "keep");
});
byId("resume").addEventListener("click", resume);
byId("log").addEventListener("toggle", () => byId("log").open && loadLog());

start();

async function start() {
  try {
    const run = await call("GET", path);
    describe(run);
    showState(run.state);
    if (FINAL.includes(run.state)) conclude(run);
  } catch (error) {
    toast(error.message, "error");
  }
  listen();
}

function listen() {
  stopFollowing?.();
  stopFollowing = follow(`/ws/training/${taskId}`, {
    onEvent: take,
    onConnection: (isConnected) => {
      byId("connection").hidden = isConnected;
    },
    onEnd: (error) => error && toast(error, "error"),
  });
}

function take(event) {
  if (event.attempt > attempt) {
    attempt = event.attempt;
    phases.clear();
    byId("failure").hidden = true;
  }
  switch (event.type) {
    case "state":
      showState(event.state);
      phases.state(event);
      break;
    case "phase":
      phases.take(event);
      break;
    case "step":
      phases.step(event);
      curves.step(event);
      tiles.step(event);
      break;
    case "eval":
      if (event.when === "during") curves.look(event);
      else phases.progress(event);
      break;
    case "canary":
      if (event.when === "during") curves.canary(event);
      break;
    case "sample":
      samples.take(event);
      break;
    case "resources":
      machine.take(event);
      tiles.resources(event);
      break;
    case "warning":
      if (event.code === "restarted") order.restarted(event);
      else warn(event);
      break;
    case "finished":
      phases.end(event);
      showState(event.status);
      call("GET", path).then(conclude, (error) => toast(error.message, "error"));
      break;
  }
}

function describe(run) {
  const about = [word("strategy", run.resolved.strategy ?? run.request.strategy)];
  if (run.attempt > 1) about.push(_("attempt %(n)s", { n: run.attempt }));
  if (run.started_at && run.finished_at) about.push(duration((new Date(run.finished_at) - new Date(run.started_at)) / 1000));
  byId("run-about").textContent = about.join(" · ");
  showConfiguration(run);
}

function showState(state) {
  byId("run-state").replaceChildren(el("span", { class: `state state-${state}`, "data-state": state }, word("state", state)));
  byId("stop").hidden = FINAL.includes(state) || state === "cancelling";
  byId("resume").hidden = !["failed", "cancelled", "paused"].includes(state);
  byId("run").dataset.state = state;
  order.state(state);
}

function conclude(run) {
  describe(run);
  byId("connection").hidden = true;
  byId("failure").hidden = run.state !== "failed";
  if (run.state === "failed") {
    byId("failure-text").textContent = explain("error", run.error_code, run.error ?? "");
    byId("log").open = true;
  }
  if (run.report) showReport(byId("report"), run);
  else if (run.state === "succeeded") showUnjudged(byId("report"), run);
}

function showConfiguration(run) {
  const effective = run.report?.configuration ?? run.result?.configuration ?? {};
  const rows = Object.entries({ ...flatten(run.resolved), ...flatten(effective) });
  const asked = flatten(run.request);
  const table = el("table", { class: "table table-sm config" }, el("thead", {}, el("tr", {}, ...[_("Setting"), _("Asked for"), _("In effect")].map((text) => el("th", { scope: "col" }, text)))));
  const body = el("tbody");
  for (const [name, value] of rows) {
    body.append(el("tr", {}, el("th", { scope: "row" }, el("code", {}, name)), el("td", {}, text(asked[name])), el("td", {}, text(value))));
  }
  table.append(body);
  byId("configuration-table").replaceChildren(table);
}

function flatten(values, prefix = "") {
  const flat = {};
  for (const [name, value] of Object.entries(values ?? {})) {
    const isGroup = value !== null && typeof value === "object" && !Array.isArray(value);
    if (isGroup) Object.assign(flat, flatten(value, `${prefix}${name}.`));
    else flat[prefix + name] = value;
  }
  return flat;
}

function text(value) {
  if (value === undefined || value === null) return "–";
  if (typeof value === "number") return rate(value);
  return Array.isArray(value) ? value.join(", ") : String(value);
}

function warn(event) {
  const text = explain("warning", event.code, event.message);
  const seen = [...byId("warnings").children].some((box) => box.textContent === text);
  if (!seen) byId("warnings").append(el("div", { class: "alert alert-warning preline" }, text));
}

async function stop(keep) {
  byId("stop").disabled = true;
  try {
    const run = await call("POST", `${path}/cancel`, { keep });
    showState(run.state);
    if (keep) toast(_("Training ends at the next step; then the run is judged and saved."));
  } catch (error) {
    toast(error.message, "error");
  }
  byId("stop").disabled = false;
}

async function resume() {
  byId("resume").disabled = true;
  try {
    const run = await call("POST", `${path}/resume`);
    byId("failure").hidden = true;
    byId("report").hidden = true;
    showState(run.state);
    listen();
  } catch (error) {
    toast(error.message, "error");
  }
  byId("resume").disabled = false;
}

async function loadLog() {
  try {
    const { text: log } = await call("GET", `/api/tasks/${taskId}/logs?tail=200`);
    byId("log-text").textContent = log || _("Nothing was printed.");
  } catch (error) {
    byId("log-text").textContent = error.message;
  }
  byId("log-text").scrollTop = byId("log-text").scrollHeight;
}
