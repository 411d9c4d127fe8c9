// Calls to the server. Every failure becomes an ApiError that says what the server said.

import { _, explain } from "./i18n.js";

export class ApiError extends Error {
  constructor(envelope, status) {
    super(explain("error", envelope.code, envelope.error ?? _("The server answered with status %(status)s.", { status })));
    this.code = envelope.code ?? "unknown";
    this.fields = envelope.fields ?? [];
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

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** Send a file as the bare body; fetch cannot report upload progress, XMLHttpRequest can. */
export function upload(file, name, onProgress) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("PUT", `/api/datasets/${encodeURIComponent(name)}?filename=${encodeURIComponent(file.name)}`);
    xhr.setRequestHeader("content-type", "application/octet-stream");
    xhr.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    xhr.addEventListener("error", () => reject(unreachable()));
    xhr.addEventListener("load", () => {
      if (xhr.status < 300) resolve(JSON.parse(xhr.responseText));
      else fail(xhr.status, xhr.responseText).catch(reject);
    });
    xhr.send(file);
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
