// Loss and learning rate by step. A step seen again under a later attempt replaces the earlier one.

import { LineChart } from "./chart.js";
import { byId } from "./dom.js";
import { decimal, rate } from "./format.js";
import { _ } from "./i18n.js";

const SMOOTHING = 0.9;

export class Curves {
  constructor() {
    this.steps = new Map();
    const xLabel = _("Step");
    this.loss = new LineChart(byId("loss-chart"), {
      height: 280,
      sync: "run",
      format: (value) => decimal(value, 2),
      series: [
        { label: _("Loss"), xLabel, colour: "--tk-accent", width: 1, alpha: 0.45 },
        { label: _("smoothed"), colour: "--tk-accent", width: 2.25 },
      ],
    });
    this.rate = new LineChart(byId("rate-chart"), {
      height: 120,
      sync: "run",
      format: rate,
      series: [{ label: _("Learning rate"), xLabel, colour: "--tk-second", width: 1.75 }],
    });
  }

  take(event) {
    const last = this.steps.get(event.step);
    if (last && last.attempt > event.attempt) return;
    if (last && last.attempt < event.attempt) this.forgetAfter(event.step);
    this.steps.set(event.step, event);
    byId("chart-empty").hidden = true;
    byId("rate-block").hidden = false;
    this.draw();
  }

  /** The steps of the attempt that was broken off do not belong to the curve of the one that goes on. */
  forgetAfter(step) {
    for (const known of [...this.steps.keys()]) if (known > step) this.steps.delete(known);
  }

  draw() {
    const events = [...this.steps.values()].sort((a, b) => a.step - b.step);
    const x = events.map((event) => event.step);
    const losses = events.map((event) => event.loss ?? null);
    this.loss.show([x, losses, smoothed(losses)]);
    this.rate.show([x, events.map((event) => event.learning_rate ?? null)]);
  }
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
