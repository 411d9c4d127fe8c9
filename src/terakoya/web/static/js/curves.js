// The curves of a run: loss in training, on held-out rows, on earlier tasks' rows and on general text, learning rate and
// gradient norm by step. A step seen again under a later attempt replaces the earlier one.

import { LineChart } from "./chart.js";
import { byId, el } from "./dom.js";
import { decimal, rate } from "./format.js";
import { _, word } from "./i18n.js";

const SMOOTHING = 0.9;
const CANARY_COLOURS = ["--tk-good", "--tk-warn", "--tk-bad", "--tk-muted"];

export class Curves {
  constructor() {
    this.steps = new Map();
    this.looks = new Map();
    this.canaries = new Map();
    this.canaryNames = [];
    this.isSmooth = true;
    const xLabel = _("Step");
    this.lossSeries = [
      { label: _("Loss"), xLabel, colour: "--tk-accent", width: 1, alpha: 0.45 },
      { label: _("smoothed"), colour: "--tk-accent", width: 2.25 },
      { label: _("held out"), colour: "--tk-second", width: 2, isSparse: true },
    ];
    this.loss = new LineChart(byId("loss-chart"), {
      height: 280,
      sync: "run",
      format: (value) => decimal(value, 2),
      series: this.lossSeries,
    });
    this.rate = this.small("rate", { label: _("Learning rate"), xLabel, colour: "--tk-accent" }, rate);
    this.norm = this.small("norm", { label: _("Gradient norm"), xLabel, colour: "--tk-accent" }, (value) => decimal(value, 2));
    toggle("chart-smooth", (isOn) => {
      this.isSmooth = isOn;
      this.draw();
    });
    toggle("chart-log", (isOn) => this.loss.setLog(isOn));
  }

  small(name, series, format) {
    return new LineChart(byId(`${name}-chart`), { height: 130, sync: "run", format, series: [{ width: 1.75, ...series }] });
  }

  step(event) {
    if (!this.keep(this.steps, event)) return;
    byId("chart-empty").hidden = true;
    for (const name of ["rate", "norm"]) byId(`${name}-block`).hidden = false;
    this.draw();
  }

  /** A look at held-out rows between two steps. */
  look(event) {
    if (this.keep(this.looks, event)) this.draw();
  }

  /** A look at earlier tasks and general text between two steps: each is a curve of its own. */
  canary(event) {
    const losses = [
      ...event.tasks.map(({ task, loss }) => [task, loss]),
      ...event.general.map(({ language, loss }) => [_("General text: %(language)s", { language: word("language", language) }), loss]),
    ];
    if (!this.keep(this.canaries, { ...event, ...Object.fromEntries(losses.map(([name, loss]) => [`of ${name}`, loss])) })) return;
    const names = losses.map(([name]) => name);
    if (names.join("\n") !== this.canaryNames.join("\n")) this.nameCanaries(names);
    this.draw();
  }

  nameCanaries(names) {
    this.canaryNames = names;
    const colour = (place) => CANARY_COLOURS[place % CANARY_COLOURS.length];
    this.loss.setSeries([
      ...this.lossSeries,
      ...names.map((label, place) => ({ label, colour: colour(place), width: 1.75, dash: [6, 4], isSparse: true })),
    ]);
    const entries = names.map((name, place) => el("span", { class: `legend-canary legend-canary-${place % CANARY_COLOURS.length}` }, name));
    byId("loss-legend").replaceChildren(...[...byId("loss-legend").children].filter((each) => !each.classList.contains("legend-canary")), ...entries);
  }

  /** Take an event in; what a broken-off attempt said of it and later steps does not belong to the one that goes on. */
  keep(known, event) {
    const last = known.get(event.step);
    if (last && last.attempt > event.attempt) return false;
    if (last && last.attempt < event.attempt) for (const step of [...known.keys()]) if (step > event.step) known.delete(step);
    known.set(event.step, event);
    return true;
  }

  draw() {
    const x = [...new Set([...this.steps.keys(), ...this.looks.keys(), ...this.canaries.keys()])].sort((a, b) => a - b);
    const of = (known, name) => x.map((step) => known.get(step)?.[name] ?? null);
    const losses = of(this.steps, "loss");
    const smooth = this.isSmooth ? smoothed(losses) : losses.map(() => null);
    this.loss.show([x, losses, smooth, of(this.looks, "loss"), ...this.canaryNames.map((name) => of(this.canaries, `of ${name}`))]);
    this.rate.show([x, of(this.steps, "learning_rate")]);
    this.norm.show([x, of(this.steps, "grad_norm")]);
  }
}

function toggle(id, act) {
  byId(id).addEventListener("click", () => {
    const isOn = byId(id).getAttribute("aria-pressed") !== "true";
    byId(id).setAttribute("aria-pressed", String(isOn));
    byId(id).classList.toggle("active", isOn);
    act(isOn);
  });
  byId(id).classList.toggle("active", byId(id).getAttribute("aria-pressed") === "true");
}

/** Exponential moving average, corrected for its start at zero. */
function smoothed(values) {
  let average = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return weight ? average / weight : null;
    average = SMOOTHING * average + (1 - SMOOTHING) * value;
    weight = SMOOTHING * weight + (1 - SMOOTHING);
    return average / weight;
  });
}
