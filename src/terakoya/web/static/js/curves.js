// The curves of a run: loss in training and on held-out rows, learning rate and gradient norm by step. A step seen
// again under a later attempt replaces the earlier one.

import { LineChart } from "./chart.js";
import { byId } from "./dom.js";
import { decimal, rate } from "./format.js";
import { _ } from "./i18n.js";

const SMOOTHING = 0.9;

export class Curves {
  constructor() {
    this.steps = new Map();
    this.looks = new Map();
    this.isSmooth = true;
    const xLabel = _("Step");
    this.loss = new LineChart(byId("loss-chart"), {
      height: 280,
      sync: "run",
      format: (value) => decimal(value, 2),
      series: [
        { label: _("Loss"), xLabel, colour: "--tk-accent", width: 1, alpha: 0.45 },
        { label: _("smoothed"), colour: "--tk-accent", width: 2.25 },
        { label: _("held out"), colour: "--tk-second", width: 2, isSparse: true },
      ],
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

  /** Take an event in; what a broken-off attempt said of it and later steps does not belong to the one that goes on. */
  keep(known, event) {
    const last = known.get(event.step);
    if (last && last.attempt > event.attempt) return false;
    if (last && last.attempt < event.attempt) for (const step of [...known.keys()]) if (step > event.step) known.delete(step);
    known.set(event.step, event);
    return true;
  }

  draw() {
    const x = [...new Set([...this.steps.keys(), ...this.looks.keys()])].sort((a, b) => a - b);
    const of = (known, name) => x.map((step) => known.get(step)?.[name] ?? null);
    const losses = of(this.steps, "loss");
    const smooth = this.isSmooth ? smoothed(losses) : losses.map(() => null);
    this.loss.show([x, losses, smooth, of(this.looks, "loss")]);
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
