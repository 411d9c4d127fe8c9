// One document in the list: sent, waiting, read and indexed step by step, ready, or failed with its reason.

import { el, setProgress } from "./dom.js";
import { bytes, count, moment } from "./format.js";
import { _, explain, finding, language, word } from "./i18n.js";
import { follow } from "./live.js";

const CLASSES = { sending: "running", queued: "queued", indexing: "running", ready: "succeeded", failed: "failed" };
const languages = new Intl.DisplayNames(language, { type: "language" });

export class DocumentRow {
  /** actions: onOpen(document), onDelete(document, row), onEnd(row) once its task has ended. */
  constructor(actions) {
    this.actions = actions;
    this.document = null;
    this.stopFollowing = null;
    this.title = el("span", { class: "row-title" });
    this.state = el("span", { class: "state" });
    this.meta = el("span", { class: "row-meta" });
    this.notices = el("span", { class: "document-notices" });
    this.failure = el("span", { class: "row-error preline", hidden: true });
    this.step = el("span", { class: "document-step" });
    this.bar = el("div", { class: "progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, el("div", { class: "progress-bar" }));
    this.progress = el("span", { class: "document-progress", hidden: true }, this.step, this.bar);
    this.open = el("button", { class: "btn btn-quiet", type: "button", hidden: true, onclick: () => actions.onOpen(this.document) }, _("Read"));
    this.file = el("input", { type: "file", class: "visually-hidden", tabindex: -1, "aria-hidden": "true", onchange: () => this.file.files.length && actions.onReplace(this.document, this.file.files[0]) });
    this.replace = el("button", { class: "btn btn-quiet", type: "button", hidden: true, onclick: () => this.file.click() }, _("New version"));
    this.former = el("details", { class: "document-versions", hidden: true, ontoggle: () => this.showVersions() }, el("summary", {}, _("Earlier versions")), el("ul", { class: "list-unstyled mb-0" }));
    this.remove = el("button", { class: "btn btn-icon", type: "button", hidden: true, onclick: () => actions.onDelete(this.document, this) }, el("span", { "aria-hidden": "true" }, "×"));
    const main = el("span", { class: "row-main" }, this.title, this.meta, this.progress, this.failure, this.notices, this.former);
    this.element = el("li", { class: "row-item" }, el("div", { class: "row-body" }, main, this.state, el("span", { class: "row-actions" }, this.open, this.replace, this.file, this.remove)));
  }

  /** A file that waits until those before it are sent. */
  showWaiting(file) {
    this.title.textContent = file.name;
    this.meta.textContent = bytes(file.size);
    this.setState("queued", word("state", "queued"));
  }

  /** A file that is on its way. */
  showSending(file, fraction) {
    this.showWaiting(file);
    this.setState("sending", _("sending"));
    this.showStep(fraction === 1 ? _("Storing …") : _("Sending …"), fraction === 1 ? null : fraction);
  }

  /** A file that was not taken. */
  showRefused(file, error) {
    this.showWaiting(file);
    this.progress.hidden = true;
    this.setState("failed", _("not taken"));
    this.showFailure(error.message);
    this.remove.hidden = false;
    this.remove.setAttribute("aria-label", _("Remove %(name)s from the list", { name: file.name }));
    this.remove.onclick = () => this.element.remove();
  }

  /** What became of the files of an archive. */
  showArchive(file, entries) {
    const number = (...states) => entries.filter(({ status }) => states.includes(status)).length;
    this.showWaiting(file);
    this.progress.hidden = true;
    const refused = entries.filter(({ status }) => status === "refused");
    this.setState(refused.length ? "failed" : "ready", _("unpacked"));
    const facts = { added: count(number("added", "replaced")), unchanged: count(number("unchanged")), others: count(number("other_type")) };
    this.meta.textContent = _("%(added)s documents added, %(unchanged)s unchanged, %(others)s files of other types passed over", facts);
    this.showFailure(refused.map(({ path, error }) => `${path}: ${error}`).join("\n"));
    this.remove.hidden = false;
    this.remove.setAttribute("aria-label", _("Remove %(name)s from the list", { name: file.name }));
    this.remove.onclick = () => this.element.remove();
  }

  async showVersions() {
    if (!this.former.open) return;
    const versions = await this.actions.versions(this.document);
    const items = versions.map((former) => el("li", {}, `${_("Version %(n)s", { n: former.version })} · ${former.filename} · ${bytes(former.size_bytes)} · ${moment(former.created_at)} `, el("button", { class: "btn btn-quiet", type: "button", onclick: () => this.actions.onOpen(former) }, _("Read"))));
    this.former.lastElementChild.replaceChildren(...items);
  }

  show(document) {
    this.document = document;
    this.element.dataset.document = document.id;
    this.title.textContent = document.title;
    const names = { queued: word("state", "queued"), indexing: _("indexing"), ready: _("ready"), failed: word("state", "failed") };
    this.setState(document.status, names[document.status] ?? document.status);
    this.meta.replaceChildren(...this.facts(document).map((fact) => el("span", {}, fact)));
    this.notices.replaceChildren(...(document.notices ?? []).map((notice) => el("span", { class: "row-notice" }, finding(notice))), ...this.confidences(document));
    this.showFailure(document.status === "failed" ? explain("error", document.error_code ?? "", document.error ?? _("It failed without saying why.")) : "");
    this.open.hidden = !document.characters;
    this.replace.hidden = document.status === "queued" || document.status === "indexing";
    this.former.hidden = !document.replaces_id;
    this.remove.hidden = false;
    this.remove.setAttribute("aria-label", _("Delete %(name)s", { name: document.title }));
    if (document.status === "indexing") this.followTask();
    else this.stop();
  }

  /** Of pages that were read by text recognition, the least certain ones first. */
  confidences({ recognised }) {
    if (!recognised?.length) return [];
    const worst = [...recognised].sort(([, one], [, other]) => one - other).slice(0, 10);
    const pages = worst.map(([page, confidence]) => _("p. %(page)s %(percent)s", { page, percent: `${Math.round(confidence)} %` })).join(", ");
    const text = _("%(n)s pages were read by text recognition; how sure it is: %(pages)s", { n: count(recognised.length), pages });
    return [el("span", { class: "row-notice" }, text)];
  }

  facts(document) {
    const facts = document.title === document.filename ? [] : [document.source ?? document.filename];
    if (document.version > 1) facts.push(_("version %(n)s", { n: document.version }));
    if (document.pages) facts.push(document.pages === 1 ? _("1 page") : _("%(n)s pages", { n: count(document.pages) }));
    if (document.passages) facts.push(document.passages === 1 ? _("1 passage") : _("%(n)s passages", { n: count(document.passages) }));
    facts.push(bytes(document.size_bytes));
    if (document.language) facts.push(languages.of(document.language));
    return [...facts, moment(document.created_at)];
  }

  setState(status, text) {
    this.state.className = `state state-${CLASSES[status] ?? "queued"}`;
    this.state.dataset.state = status;
    this.state.textContent = text;
  }

  showStep(text, fraction) {
    this.progress.hidden = false;
    this.step.textContent = text;
    this.bar.setAttribute("aria-label", text);
    setProgress(this.bar, fraction);
  }

  showFailure(text) {
    this.failure.textContent = text;
    this.failure.hidden = !text;
  }

  followTask() {
    if (this.stopFollowing || !this.document.task_id) return;
    this.showStep(_("indexing"), null);
    this.stopFollowing = follow(`/ws/tasks/${this.document.task_id}`, {
      onEvent: (event) => {
        if (event.type !== "phase") return;
        const isCounted = Number.isFinite(event.done) && event.total > 0;
        const amount = isCounted ? ` · ${count(event.done)} / ${count(event.total)}` : "";
        this.showStep(`${word("phase", event.phase)}${amount}`, isCounted ? event.done / event.total : null);
      },
      onEnd: () => this.actions.onEnd(this),
    });
  }

  stop() {
    this.stopFollowing?.();
    this.stopFollowing = null;
    this.progress.hidden = true;
  }
}
