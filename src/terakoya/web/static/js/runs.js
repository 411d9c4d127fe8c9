// Reloads the list when an unfinished run changes state.

import { call } from "./api.js";
import "./shell.js";

const POLL_MS = 4000;
const FINAL = ["succeeded", "failed", "cancelled"];
const shown = new Map([...document.querySelectorAll("[data-run]")].map((row) => [row.dataset.run, row.dataset.state]));

async function look() {
  if (!document.hidden) {
    const { runs } = await call("GET", "/api/train");
    if (runs.some((run) => shown.get(run.id) !== run.state)) {
      location.reload();
      return;
    }
  }
  setTimeout(look, POLL_MS);
}

if ([...shown.values()].some((state) => !FINAL.includes(state))) setTimeout(look, POLL_MS);
