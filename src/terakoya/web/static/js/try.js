// One prompt to two models; each answer grows as it is written.

import { request, serverSent } from "./api.js";
import { byId, showError } from "./dom.js";
import { count, decimal } from "./format.js";
import { _ } from "./i18n.js";
import "./shell.js";

const form = byId("try-form");
const sides = [...document.querySelectorAll("[data-side]")].map((place) => ({
  select: place.querySelector("select"),
  answer: place.querySelector("[data-answer]"),
  foot: place.querySelector("[data-foot]"),
}));
let aborter = null;

const wanted = new URLSearchParams(location.search).get("models")?.split(",") ?? [];
sides.forEach(({ select }, index) => {
  if ([...select.options].some((option) => option.value === wanted[index])) select.value = wanted[index];
});

form?.addEventListener("submit", ask);
byId("stop")?.addEventListener("click", () => aborter?.abort());
byId("prompt")?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});

async function ask(event) {
  event.preventDefault();
  showError(byId("try-error"), null);
  const chosen = sides.filter(({ select }) => select.value);
  const models = [...new Set(chosen.map(({ select }) => select.value))];
  for (const side of sides) {
    side.answer.textContent = "";
    side.answer.classList.remove("is-error");
    side.foot.textContent = side.select.value ? _("Waiting for the model …") : "";
    side.answer.setAttribute("aria-busy", String(Boolean(side.select.value)));
  }
  working(true);
  aborter = new AbortController();
  try {
    const body = { prompt: byId("prompt").value, models, max_tokens: Number(byId("max-tokens").value), temperature: Number(byId("temperature").value) };
    if (byId("system").value.trim()) body.system = byId("system").value;
    const response = await request("POST", "/api/models/compare", body, aborter.signal);
    for await (const piece of serverSent(response)) {
      for (const side of chosen.filter(({ select }) => select.value === piece.model)) take(side, piece);
    }
  } catch (error) {
    if (error.name !== "AbortError") showError(byId("try-error"), error);
  }
  for (const side of sides) {
    side.answer.setAttribute("aria-busy", "false");
    if (side.foot.textContent === _("Waiting for the model …")) side.foot.textContent = "";
  }
  working(false);
}

function take(side, piece) {
  if (piece.delta !== undefined) {
    side.answer.append(piece.delta);
    side.foot.textContent = "";
  }
  if (piece.finished) {
    const speed = piece.seconds > 0 ? piece.tokens / piece.seconds : 0;
    side.foot.textContent = _("%(tokens)s tokens · %(seconds)s s · %(speed)s tokens/s", { tokens: count(piece.tokens), seconds: decimal(piece.seconds, 1), speed: decimal(speed, 0) });
    side.answer.setAttribute("aria-busy", "false");
    if (!side.answer.textContent) side.answer.textContent = _("(empty)");
  }
  if (piece.error) {
    side.answer.textContent = piece.error;
    side.answer.classList.add("is-error");
    side.foot.textContent = "";
  }
}

function working(isWorking) {
  byId("ask").disabled = isWorking;
  byId("stop").hidden = !isWorking;
}
