// A conversation with one model. It lives in this tab: a reload keeps it, closing the tab ends it.

import { request, serverSent, streamError } from "./api.js";
import { byId, el, showError } from "./dom.js";
import { count } from "./format.js";
import { _, word } from "./i18n.js";
import "./shell.js";

const KEPT = "terakoya_chat";
const form = byId("chat-form");
const log = byId("log");
const message = byId("message");
let turns = [];
let aborter = null;

if (form) {
  restore();
  form.addEventListener("submit", send);
  byId("stop").addEventListener("click", () => aborter?.abort());
  byId("new-chat").addEventListener("click", beginAnew);
  message.addEventListener("input", grow);
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!byId("send").disabled) form.requestSubmit();
  });
}

function restore() {
  const wanted = new URLSearchParams(location.search).get("model");
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
    turns = kept.turns ?? [];
    choose(wanted ?? kept.model);
  } catch {
    choose(wanted);
  }
  for (const turn of turns) bubble(turn);
  showWhetherEmpty();
  toEnd();
}

function choose(id) {
  if ([...byId("model").options].some((option) => option.value === id)) byId("model").value = id;
}

const keep = () => sessionStorage.setItem(KEPT, JSON.stringify({ turns, model: byId("model").value }));

function beginAnew() {
  aborter?.abort();
  turns = [];
  log.replaceChildren();
  showError(byId("chat-error"), null);
  keep();
  showWhetherEmpty();
  message.focus();
}

async function send(event) {
  event.preventDefault();
  const question = { role: "user", content: message.value.trim() };
  if (!question.content) return;
  const asked = turns;
  const option = byId("model").selectedOptions[0];
  const answer = { role: "assistant", content: "", model: option.textContent.split(" · ")[0] };
  const questionBubble = bubble(question);
  const view = bubble(answer);
  message.value = "";
  grow();
  showWhetherEmpty();
  working(true, view);
  aborter = new AbortController();
  let failure = null;
  try {
    await receive(answer, view, [...asked, question], option.value);
  } catch (error) {
    failure = error;
  }
  const wasAtEnd = isAtEnd();
  working(false, view);
  if (asked !== turns) return; // a new conversation was begun meanwhile
  showError(byId("chat-error"), failure && failure.name !== "AbortError" ? failure : null);
  if (failure && !answer.content) {
    questionBubble.element.remove();
    view.element.remove();
    message.value ||= question.content;
    grow();
  } else {
    if (failure) view.foot.textContent = _("Stopped.");
    turns.push(question, answer);
    keep();
  }
  showWhetherEmpty();
  if (wasAtEnd) toEnd();
  message.focus();
}

async function receive(answer, view, conversation, model) {
  const system = byId("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...conversation.map(({ role, content }) => ({ role, content }))];
  const body = { model, messages, stream: true, stream_options: { include_usage: true }, max_tokens: Number(byId("max-tokens").value), temperature: Number(byId("temperature").value) };
  const response = await request("POST", "/v1/chat/completions", body, aborter.signal);
  let reason = "stop";
  for await (const chunk of serverSent(response)) {
    if (chunk.error) throw streamError(chunk);
    const [choice] = chunk.choices;
    reason = choice?.finish_reason ?? reason;
    if (choice?.delta.content) {
      answer.content += choice.delta.content;
      const wasAtEnd = isAtEnd();
      view.text.append(choice.delta.content);
      if (wasAtEnd) toEnd();
    }
    if (chunk.usage) view.foot.textContent = _("%(n)s tokens", { n: count(chunk.usage.completion_tokens) });
  }
  if (reason === "length") view.foot.append(" · ", _("cut at the longest answer"));
  if (!answer.content) view.text.textContent = _("(empty)");
}

/** Put a turn into the log; its text is only ever text. */
function bubble(turn) {
  const text = el("div", { class: "bubble-text" }, turn.content);
  const foot = el("div", { class: "bubble-foot" });
  const who = turn.role === "user" ? word("role", "user") : turn.model;
  const element = el("div", { class: `bubble bubble-${turn.role}` }, el("div", { class: "bubble-who" }, who), text, foot);
  log.append(element);
  toEnd();
  return { element, text, foot };
}

function working(isWorking, view) {
  byId("send").disabled = isWorking;
  byId("stop").hidden = !isWorking;
  view.text.setAttribute("aria-busy", String(isWorking));
  log.setAttribute("aria-busy", String(isWorking));
}

function showWhetherEmpty() {
  byId("chat-empty").hidden = log.children.length > 0;
}

/** Whether the reader is at the end; one who scrolled back is left there. */
const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 60;

function toEnd() {
  log.scrollTop = log.scrollHeight;
}

/** The message box is as high as its text, up to a third of the window. */
function grow() {
  message.style.height = "auto";
  message.style.height = `${Math.min(message.scrollHeight + 2, innerHeight / 3)}px`;
}
