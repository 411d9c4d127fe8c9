// What a run takes of the machine over time: load of processor and graphics card, and memory.

import { LineChart } from "./chart.js";
import { byId } from "./dom.js";
import { bytes, duration } from "./format.js";
import { _ } from "./i18n.js";

export class MachineCurves {
  constructor() {
    this.begun = null;
    this.times = [];
    this.columns = { cpu: [], gpu: [], ram: [], vram: [] };
  }

  take(event) {
    const now = new Date(event.time).getTime() / 1000;
    if (this.begun === null) this.begin(now, event);
    this.times.push(now - this.begun);
    this.columns.cpu.push(event.cpu_percent / (event.cores || 1));
    this.columns.gpu.push(event.gpu_percent ?? null);
    this.columns.ram.push(event.rss_bytes);
    this.columns.vram.push(event.gpu_memory_bytes ?? null);
    for (const name of ["load", "memory"]) byId(`${name}-block`).hidden = false;
    this.load.show([this.times, this.columns.cpu, ...(this.hasCard ? [this.columns.gpu] : [])]);
    this.memory.show([this.times, this.columns.ram, ...(this.hasCard ? [this.columns.vram] : [])]);
  }

  begin(now, event) {
    this.begun = now;
    this.hasCard = event.gpu_memory_bytes !== undefined;
    const xLabel = _("Time");
    const card = this.hasCard ? [{ label: _("Graphics card"), colour: "--tk-second" }] : [];
    this.load = chart("load", (value) => `${Math.round(value)}%`, [{ label: _("Processor"), xLabel, colour: "--tk-accent" }, ...card]);
    this.memory = chart("memory", bytes, [{ label: _("Memory"), xLabel, colour: "--tk-accent" }, ...card]);
  }
}

function chart(name, format, series) {
  return new LineChart(byId(`${name}-chart`), { height: 130, sync: "machine", format, formatX: duration, fromZero: true, series: series.map((each) => ({ width: 1.75, ...each })) });
}
