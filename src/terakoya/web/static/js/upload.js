// The upload box: choose or drop a file, name it, send it with progress.

import { upload } from "./api.js";
import { badRows } from "./dataset-report.js";
import { el, setProgress, showError } from "./dom.js";
import { dropZone } from "./drop-zone.js";
import { bytes, count } from "./format.js";
import { _ } from "./i18n.js";

const COLUMN_PROBLEMS = new Set(["no_known_fields", "missing_field", "missing_column"]);

/** Make every upload box on the page work; onDone gets the new dataset. */
export function setUpUploads(onDone) {
  for (const box of document.querySelectorAll("[data-upload]")) setUp(box, onDone);
}

function setUp(box, onDone) {
  const part = (name) => box.querySelector(`[data-${name}]`);
  const drop = part("drop");
  let file = null;

  function choose(chosen) {
    if (!chosen) return;
    const limit = Number(box.dataset.limit);
    if (chosen.size > limit) {
      clear();
      showError(part("error"), new Error(_("%(name)s has %(size)s; at most %(limit)s can be uploaded.", { name: chosen.name, size: bytes(chosen.size), limit: bytes(limit) })));
      return;
    }
    file = chosen;
    showError(part("error"), null);
    part("refused").hidden = true;
    part("file-text").textContent = `${file.name} · ${bytes(file.size)}`;
    part("name").value = file.name.replace(/\.gz$/i, "").replace(/\.[^.]*$/, "").slice(0, 100);
    drop.hidden = true;
    part("form").hidden = false;
    part("name").focus();
  }

  function clear() {
    file = null;
    part("file").value = "";
    part("form").hidden = true;
    part("progress").hidden = true;
    drop.hidden = false;
  }

  /** What was said of the columns, and of bad rows. */
  function options() {
    const named = [...box.querySelectorAll("[data-column]")].map((input) => [input.dataset.column, input.value.trim()]);
    const mapping = Object.fromEntries(named.filter(([, column]) => column));
    const chosen = part("skip").checked ? { skip_bad_rows: true } : {};
    return Object.keys(mapping).length ? { ...chosen, mapping: JSON.stringify(mapping) } : chosen;
  }

  /** Show why a file was refused: row by row where the server says so, with the columns it found at hand. */
  function refuse(error) {
    const { report } = error.details ?? {};
    const rows = report ? badRows(report) : [];
    showError(part("error"), rows.length ? new Error(_("%(bad)s of %(read)s rows cannot be used. Correct them, or choose to leave them out.", { bad: count(report.rows.bad), read: count(report.rows.read) })) : error);
    part("refused").replaceChildren(...rows);
    part("refused").hidden = rows.length === 0;
    part("known-columns").replaceChildren(...(report?.file.columns ?? []).map((value) => el("option", { value })));
    if (report?.reasons.some(({ code }) => COLUMN_PROBLEMS.has(code))) part("columns").open = true;
  }

  async function send() {
    const bar = part("progress").querySelector(".progress");
    part("send").disabled = true;
    part("progress").hidden = false;
    part("refused").hidden = true;
    showError(part("error"), null);
    try {
      const dataset = await upload(file, part("name").value.trim(), options(), (loaded, total) => {
        setProgress(bar, loaded < total ? loaded / total : null);
        part("progress-text").textContent = loaded < total ? _("Sending …") : _("Checking every row …");
        part("progress-percent").textContent = `${bytes(loaded)} / ${bytes(total)}`;
      });
      clear();
      onDone(dataset);
    } catch (error) {
      part("progress").hidden = true;
      refuse(error);
    } finally {
      part("send").disabled = false;
    }
  }

  part("file").addEventListener("change", () => choose(part("file").files[0]));
  part("send").addEventListener("click", send);
  part("clear").addEventListener("click", clear);
  part("name").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    send();
  });
  dropZone(drop, (files) => choose(files[0]));
}
