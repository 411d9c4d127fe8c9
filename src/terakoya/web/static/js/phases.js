// The phases a run goes through: those behind it with their time, and the present one with its progress.

import { byId, el, icon, setProgress } from "./dom.js";
import { count, duration } from "./format.js";
import { _, word } from "./i18n.js";

export class PhaseList {
  constructor() {
    this.clear();
  }

  clear() {
    this.current = null;
    byId("phases").replaceChildren();
    setProgress(byId("now-progress"), 0);
  }

  state(event) {
    if (event.state === "queued") this.enter("queued", event.time);
    if (["cancelling", "pausing", "paused"].includes(event.state)) byId("now-phase").textContent = word("state", event.state);
  }

  take(event) {
    this.enter(event.phase, event.time);
    byId("now-detail").textContent = event.detail ?? "";
    this.progress(event);
  }

  /** Show how far the present phase is, where an event says so. */
  progress(event) {
    const isCounted = Number.isFinite(event.done) && event.total > 0;
    if (isCounted) this.show(event.done, event.total);
  }

  step(event) {
    if (this.current?.phase !== "training") this.enter("training", event.time);
    this.show(event.step, event.total_steps);
  }

  show(done, total) {
    setProgress(byId("now-progress"), done / total);
    byId("now-done").textContent = `${count(done)} / ${count(total)}`;
  }

  enter(phase, time) {
    if (this.current?.phase === phase) return;
    this.leave(time);
    const took = el("span", { class: "phase-time" });
    const item = el("li", { class: "is-current", "data-phase": phase }, el("span", { class: "phase-dot", "aria-hidden": "true" }), el("span", {}, word("phase", phase)), took);
    byId("phases").append(item);
    this.current = { phase, time, item, took };
    byId("now-phase").textContent = word("phase", phase);
    byId("now-done").textContent = "";
    byId("now-detail").textContent = phase === "queued" ? _("It starts as soon as no other run is in the way.") : "";
    setProgress(byId("now-progress"), null);
  }

  leave(time) {
    if (!this.current) return;
    const { item, took, time: entered } = this.current;
    item.className = "is-done";
    item.firstElementChild.replaceChildren(icon("check"));
    took.textContent = duration((new Date(time) - new Date(entered)) / 1000);
  }

  end(event) {
    const succeeded = event.status === "succeeded";
    this.leave(event.time);
    if (!succeeded && this.current) {
      this.current.item.className = "is-failed";
      this.current.item.firstElementChild.replaceChildren(icon("cross"));
    }
    this.current = null;
    byId("now-phase").textContent = word("state", event.status);
    byId("now-done").textContent = "";
    byId("now-detail").textContent = "";
    setProgress(byId("now-progress"), succeeded ? 1 : 0);
  }
}
