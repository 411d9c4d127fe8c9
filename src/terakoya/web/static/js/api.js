// Calls to the server. Every failure becomes an ApiError that says what the server said.

import { _, explain } from "./i18n.js";

export class ApiError extends Error {
  constructor(envelope, status) {
    super(explain("error", envelope.code, envelope.error ?? _("The server answered with status %(status)s.", { status })));
    this.code = envelope.code ?? "unknown";
    this.fields = envelope.fields ?? [];
    this.details = envelope.details ?? {};
    this.status = status;
  }
}

const unreachable = () => new ApiError({ error: _("The server does not answer. Is it still running?"), code: "unreachable" }, 0);

export async function call(method, path, body) {
  const response = await request(method, path, body);
  return response.status === 204 ? null : response.json();
}

export async function request(method, path, body, signal) {
  const options = { method, signal, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) await fail(response.status, await response.text());
  return response;
}

async function fail(status, text) {
  if (status === 401 && location.pathname !== "/login") {
    location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
  }
  throw new ApiError(parse(text), status);
}

/** The error envelope; OpenAI's, which the /v1 routes speak, is brought into the form of the others. */
function parse(text) {
  try {
    return flat(JSON.parse(text));
  } catch {
    return {};
  }
}

const flat = (envelope) => (typeof envelope.error === "object" ? { error: envelope.error.message, code: envelope.error.code } : envelope);

/** The error that came as an event in mid-stream. */
export const streamError = (event) => new ApiError(flat(event), 200);

/** Send a file as the bare body of a new dataset; options are query parameters. */
export function upload(file, name, options, onProgress) {
  const query = new URLSearchParams({ filename: file.name, ...options });
  return send("PUT", `/api/datasets/${encodeURIComponent(name)}?${query}`, file, onProgress, { "content-type": "application/octet-stream" });
}

/** Send a file as a form with text fields. */
export function uploadForm(path, file, fields, onProgress) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("file", file, file.name);
  return send("POST", path, form, onProgress);
}

/** fetch cannot report upload progress, XMLHttpRequest can. */
function send(method, path, body, onProgress, headers = {}) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, path);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    xhr.addEventListener("error", () => reject(unreachable()));
    xhr.addEventListener("load", () => {
      if (xhr.status < 300) resolve(JSON.parse(xhr.responseText));
      else fail(xhr.status, xhr.responseText).catch(reject);
    });
    xhr.send(body);
  });
}

/** Yield each object of a server-sent event stream until [DONE]. */
export async function* serverSent(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") return;
      yield JSON.parse(line.slice(6));
    }
  }
}
