// The documents of one collection: sent many at once, followed until they can be asked about, read, deleted.

import { call, uploadForm } from "./api.js";
import { fillCollections, pathOf, remember } from "./collections.js";
import { DocumentRow } from "./document-row.js";
import { byId, showError } from "./dom.js";
import { dropZone } from "./drop-zone.js";
import { bytes, count } from "./format.js";
import { _ } from "./i18n.js";
import { confirmed, toast } from "./shell.js";
import { openText } from "./text-panel.js";

const SENT_AT_ONCE = 2;
const LOOK_AGAIN_MS = 1500;

const picker = byId("collection");
const list = byId("documents");
const rows = new Map();
let known = new Map();
let waiting = [];
let duplicates = [];
let sending = 0;
let timer = null;

// -- the list --

async function refresh() {
  clearTimeout(timer);
  const collection = picker.value;
  // A collection that was never used is not there yet, and so is none of its documents.
  const { documents } = known.has(collection) ? await call("GET", `/rag/documents?collection=${encodeURIComponent(collection)}`) : { documents: [] };
  if (collection !== picker.value) return;
  show(documents);
  const isBusy = documents.some(({ status }) => status === "queued" || status === "indexing");
  if (isBusy) timer = setTimeout(() => refresh().catch(complain), LOOK_AGAIN_MS);
}

function show(documents) {
  const present = new Set(documents.map(({ id }) => id));
  for (const [id, row] of rows) if (!present.has(id)) forget(id, row);
  for (const document of documents) {
    const isNew = !rows.has(document.id);
    const row = rows.get(document.id) ?? new DocumentRow(actions);
    rows.set(document.id, row);
    if (isNew) list.append(row.element);
    row.show(document);
  }
  // Those on their way stand above; the others as the server has them, newest first.
  const isInOrder = documents.every(({ id }, index) => list.children[list.children.length - documents.length + index] === rows.get(id).element);
  if (!isInOrder) for (const { id } of documents) list.append(rows.get(id).element);
  byId("documents-empty").hidden = list.children.length > 0;
}

function forget(id, row) {
  row.stop();
  row.element.remove();
  rows.delete(id);
}

const actions = {
  onOpen: ({ id, title }) => openText({ document_id: id, title }),
  onEnd: () => refresh().catch(complain),
  onReplace: (document, file) => take([file], document.id),
  versions: async ({ id }) => (await call("GET", `/rag/documents/${encodeURIComponent(id)}/versions`)).documents.filter((other) => other.id !== id),
  async onDelete(document, row) {
    const question = _("Delete %(name)s?", { name: document.title });
    if (!(await confirmed(question, _("Its text, its passages and the file are removed. This cannot be undone."), _("Delete")))) return;
    try {
      const receipt = await call("DELETE", `/rag/documents/${encodeURIComponent(document.id)}`);
      forget(document.id, row);
      const facts = { name: document.title, files: count(receipt.files), passages: count(receipt.passages), vectors: receipt.vectors === null ? "?" : count(receipt.vectors) };
      const text = _("Deleted %(name)s: %(files)s files, %(passages)s passages, %(vectors)s vectors.", facts);
      byId("documents-news").textContent = text;
      toast(text);
      await reload();
      picker.focus();
    } catch (error) {
      toast(error.message, "error");
      row.remove.focus();
    }
  },
};

const complain = (error) => showError(byId("collection-error"), error);

// -- sending --

/** replaces: the id of the document whose next version the one file is. */
function take(files, replaces = "") {
  showError(byId("collection-error"), null);
  const page = byId("documents-page").dataset;
  for (const file of files) {
    const row = new DocumentRow(actions);
    row.showWaiting(file);
    list.prepend(row.element);
    const limit = Number(endsWithOne(file, page.archives) ? page.archiveLimit : page.limit);
    if (file.size > limit) row.showRefused(file, new Error(_("%(name)s has %(size)s; at most %(limit)s can be uploaded.", { name: file.name, size: bytes(file.size), limit: bytes(limit) })));
    else waiting.push({ file, row, collection: picker.value, replaces });
  }
  byId("documents-empty").hidden = list.children.length > 0;
  sendNext();
}

const endsWithOne = (file, endings) => endings.split(",").some((ending) => file.name.toLowerCase().endsWith(ending));

/** Of a folder only what is read, without hidden files; its archives are not opened. */
function takeFolder(files) {
  const { suffixes } = byId("documents-page").dataset;
  const read = files.filter((file) => endsWithOne(file, suffixes) && !/(^|\/)\./.test(file.webkitRelativePath));
  if (read.length < files.length) toast(_("%(n)s files of other types were passed over.", { n: count(files.length - read.length) }));
  take(read);
}

function sendNext() {
  while (sending < SENT_AT_ONCE && waiting.length) {
    sending += 1;
    send(waiting.shift()).finally(() => {
      sending -= 1;
      sendNext();
      if (!sending) tellDuplicates();
    });
  }
}

/** One line for all of them: a folder sent a second time is nothing but duplicates. */
function tellDuplicates() {
  const [name] = duplicates;
  if (duplicates.length === 1) toast(_("%(name)s is in this collection already.", { name }));
  else if (name) toast(_("%(n)s of the files are in this collection already.", { n: count(duplicates.length) }));
  duplicates = [];
}

async function send({ file, row, collection, replaces }) {
  let answer;
  const isArchive = endsWithOne(file, byId("documents-page").dataset.archives);
  const place = replaces ? { replaces } : file.webkitRelativePath ? { path: file.webkitRelativePath } : {};
  try {
    answer = await uploadForm(isArchive ? "/rag/archives" : "/rag/documents", file, isArchive ? { collection } : { collection, ...place }, (loaded, total) => row.showSending(file, total ? loaded / total : 1));
  } catch (error) {
    row.showRefused(file, error);
    return;
  }
  if (answer.duplicate) duplicates.push(file.name);
  if (isArchive) row.showArchive(file, answer.entries);
  else row.element.remove();
  if (collection === picker.value) await reload().catch(complain);
}

// -- collections --

async function reload(wanted = picker.value) {
  known = await fillCollections(picker, wanted);
  byId("collection-delete").disabled = byId("collection-rebuild").disabled = !known.has(picker.value);
  byId("ask-link").href = `/ask?collection=${encodeURIComponent(picker.value)}`;
  await refresh();
}

function showForm(isShown) {
  byId("collection-form").hidden = !isShown;
  byId("collection-new").setAttribute("aria-expanded", String(isShown));
  byId(isShown ? "collection-name" : "collection-new").focus();
}

async function create(event) {
  event.preventDefault();
  const name = byId("collection-name").value.trim();
  try {
    await call("POST", "/rag/collections", { name });
    byId("collection-name").value = "";
    showForm(false);
    showError(byId("collection-error"), null);
    clearList();
    await reload(name);
  } catch (error) {
    complain(error);
    byId("collection-name").focus();
  }
}

async function deleteCollection() {
  const name = picker.value;
  const question = _("Delete the collection %(name)s?", { name });
  if (!(await confirmed(question, _("Every document in it is removed with it. This cannot be undone."), _("Delete")))) return;
  try {
    await call("DELETE", pathOf(name));
    clearList();
    await reload("default");
  } catch (error) {
    complain(error);
  }
}

async function rebuild() {
  try {
    await call("POST", `${pathOf(picker.value)}/rebuild`);
    toast(_("The index is built anew in the background; questions wait until it is done."));
  } catch (error) {
    complain(error);
  }
}

function clearList() {
  for (const [id, row] of rows) forget(id, row);
  list.replaceChildren();
}

// -- listeners --

picker.addEventListener("change", () => {
  remember(picker.value);
  clearList();
  reload().catch(complain);
});
byId("collection-new").addEventListener("click", () => showForm(byId("collection-form").hidden));
byId("collection-cancel").addEventListener("click", () => showForm(false));
byId("collection-form").addEventListener("submit", create);
byId("collection-delete").addEventListener("click", deleteCollection);
byId("collection-rebuild").addEventListener("click", rebuild);

byId("files").addEventListener("change", () => {
  take([...byId("files").files]);
  byId("files").value = "";
});
byId("folder-choose").addEventListener("click", () => byId("folder").click());
byId("folder").addEventListener("change", () => {
  takeFolder([...byId("folder").files]);
  byId("folder").value = "";
});
dropZone(byId("drop"), (files) => take(files));

if (!byId("documents-page").hidden) reload().catch(complain);
