// A chain's page: check every byte, erase the rows it keeps, delete it or the end of a branch.

import { call } from "./api.js";
import { byId } from "./dom.js";
import { count } from "./format.js";
import { _, word } from "./i18n.js";
import { confirmed, removeAfterAsking, toast } from "./shell.js";

const { chain, name, models } = byId("chain").dataset;
const path = `/api/chains/${chain}`;

byId("verify").addEventListener("click", async () => {
  const button = byId("verify");
  button.disabled = true;
  byId("verdict").textContent = _("Hashing every file …");
  try {
    show(await call("POST", `${path}/verify`));
  } catch (error) {
    byId("verdict").textContent = "";
    toast(error.message, "error");
  } finally {
    button.disabled = false;
  }
});

byId("erase")?.addEventListener("click", async () => {
  const costs = [...document.querySelectorAll("[data-cost]")].map((cost) => cost.textContent);
  if (!(await confirmed(_("Erase the kept rows of %(name)s?", { name }), costs.join(" "), _("Erase")))) return;
  try {
    const erased = await call("DELETE", `${path}/rows`);
    toast(_("%(n)s rows erased.", { n: count(erased.rows) }));
    location.reload();
  } catch (error) {
    toast(error.message, "error");
  }
});

byId("delete").addEventListener("click", async () => {
  const text = models === "0" ? _("This cannot be undone.") : _("Its models are deleted with it, since nothing could go on from them. This cannot be undone.");
  if (!(await confirmed(_("Delete %(name)s?", { name }), text, _("Delete")))) return;
  try {
    await call("DELETE", `${path}?models=${models !== "0"}`);
    location.assign("/chains");
  } catch (error) {
    toast(error.message, "error");
  }
});

for (const row of document.querySelectorAll("[data-link]")) {
  const button = row.querySelector("[data-delete-link]");
  button?.addEventListener("click", () => removeAfterAsking(button, `${path}/links/${row.dataset.link}`, row.dataset.link));
}

function show(verdict) {
  byId("verdict").textContent = verdict.intact ? _("Every byte is as it was written.") : _("Something is not as it was written; see the task.");
  for (const link of verdict.links) {
    const place = document.querySelector(`[data-link="${CSS.escape(link.link)}"] [data-damages]`);
    const told = link.damages.map(({ file, problem }) => `${file}: ${word("damage", problem)}`);
    if (place) place.textContent = told.join(", ");
    else if (told.length) toast(`${link.link}: ${told.join(", ")}`, "error");
  }
}
