// The figures of the present step.

import { byId } from "./dom.js";
import { bytes, count, decimal, duration } from "./format.js";

export class Tiles {
  step(event) {
    byId("tile-step").textContent = `${count(event.step)} / ${count(event.total_steps)}`;
    byId("tile-eta").textContent = duration(event.eta_seconds);
    byId("tile-loss").textContent = decimal(event.loss, 3);
    byId("tile-speed").textContent = event.tokens_per_second ? count(event.tokens_per_second) : "–";
    byId("tile-epoch").textContent = decimal(event.epoch, 2);
  }

  resources(event) {
    byId("tile-memory").textContent = bytes(event.rss_bytes);
  }
}
