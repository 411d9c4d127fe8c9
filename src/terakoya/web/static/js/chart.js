// One line chart over steps, drawn by uPlot in the colours of the page.

import uPlot from "../vendor/uplot/uPlot.esm.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A chart that takes [x, ...series] columns; the height is in CSS pixels, the width is the place's. A series that is
 * sparse has points with lines between them, whatever lies in between.
 */
export class LineChart {
  constructor(place, { height, series, format, sync, formatX = null, fromZero = false }) {
    this.place = place;
    this.settings = { height, series, format, sync, formatX, fromZero };
    this.isLog = false;
    this.data = [[], ...series.map(() => [])];
    this.plot = null;
    this.frame = null;
    new ResizeObserver(() => this.plot?.setSize({ width: place.clientWidth, height })).observe(place);
    document.addEventListener("themechange", () => this.rebuild());
  }

  /** Show these columns at the next frame; many calls in one frame cost one drawing. */
  show(data) {
    this.data = data;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.plot) this.plot.setData(this.data);
      else this.rebuild();
    });
  }

  /** Draw other series from the next data on. */
  setSeries(series) {
    this.settings.series = series;
    this.plot?.destroy();
    this.plot = null;
  }

  setLog(isLog) {
    this.isLog = isLog;
    this.rebuild();
  }

  rebuild() {
    if (this.data[0].length === 0) return;
    this.plot?.destroy();
    this.plot = new uPlot(this.options(), this.data, this.place);
  }

  options() {
    const { height, series, format, sync, formatX, fromZero } = this.settings;
    const y = this.isLog ? { distr: 3 } : fromZero ? { range: (_plot, _low, high) => [0, high * 1.1 || 1] } : {};
    const axis = {
      stroke: colour("--tk-muted"),
      grid: { stroke: colour("--tk-line"), width: 1 },
      ticks: { show: false },
      font: `12px ${getComputedStyle(document.body).fontFamily}`,
    };
    return {
      width: this.place.clientWidth,
      height,
      cursor: { y: false, sync: { key: sync }, points: { size: 7 } },
      legend: { show: true, live: true },
      scales: { x: { time: false }, y },
      axes: [
        { ...axis, grid: { show: false }, values: (_plot, values) => values.map(formatX ?? ((value) => (Number.isInteger(value) ? value : ""))) },
        { ...axis, size: 58, values: (_plot, values) => values.map((value) => (value === null ? "" : format(value))) },
      ],
      series: [
        { label: series[0].xLabel, value: (_plot, value) => (value === null ? "–" : formatX ? formatX(value) : value) },
        ...series.map((each) => ({
          label: each.label,
          stroke: colour(each.colour),
          width: each.width,
          dash: each.dash,
          alpha: each.alpha ?? 1,
          spanGaps: Boolean(each.isSparse),
          points: { show: each.isSparse ? true : (plot) => plot.data[0].length < 2, size: 6 },
          value: (_plot, value) => (value === null || value === undefined ? "–" : format(value)),
        })),
      ],
    };
  }
}
