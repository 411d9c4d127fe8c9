// The upload box: choose or drop a file, name it, send it with progress.

import { upload } from "./api.js";
import { setProgress, showError } from "./dom.js";
import { dropZone } from "./drop-zone.js";
import { bytes } from "./format.js";
import { _ } from "./i18n.js";

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
    part("file-text").textContent = `${file.name} · ${bytes(file.size)}`;
    part("name").value = file.name.replace(/\.[^.]*$/, "").slice(0, 100);
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

  async function send() {
    const bar = part("progress").querySelector(".progress");
    part("send").disabled = true;
    part("progress").hidden = false;
    showError(part("error"), null);
    try {
      const dataset = await upload(file, part("name").value.trim(), (loaded, total) => {
        setProgress(bar, loaded < total ? loaded / total : null);
        part("progress-text").textContent = loaded < total ? _("Sending …") : _("Checking every row …");
        part("progress-percent").textContent = `${bytes(loaded)} / ${bytes(total)}`;
      });
      clear();
      onDone(dataset);
    } catch (error) {
      part("progress").hidden = true;
      showError(part("error"), error);
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
