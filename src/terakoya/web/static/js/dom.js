// Building and finding elements. Data only ever becomes text.

export const byId = (id) => document.getElementById(id);

/** Make an element: attributes by name, listeners as on*, children as elements or text. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  check: "M16 8A8 8 0 1 1 0 8a8 8 0 0 1 16 0m-3.970-3.030a.75.75 0 0 0-1.080.022L7.477 9.417 5.384 7.323a.75.75 0 0 0-1.060 1.060L6.970 11.030a.75.75 0 0 0 1.079-.020l3.992-4.990a.75.75 0 0 0-.010-1.050z",
  cross: "M16 8A8 8 0 1 1 0 8a8 8 0 0 1 16 0M5.354 4.646a.5.5 0 1 0-.708.708L7.293 8l-2.647 2.646a.5.5 0 0 0 .708.708L8 8.707l2.646 2.647a.5.5 0 0 0 .708-.708L8.707 8l2.647-2.646a.5.5 0 0 0-.708-.708L8 7.293z",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `bi bi-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  path.setAttribute("fill-rule", "evenodd");
  svg.append(path);
  return svg;
}

/** Set a Bootstrap progress bar; null shows that something happens without saying how much. */
export function setProgress(bar, fraction) {
  const inner = bar.firstElementChild;
  const known = fraction !== null && Number.isFinite(fraction);
  const percent = known ? Math.min(100, Math.max(0, fraction * 100)) : 100;
  inner.style.width = `${percent}%`;
  inner.classList.toggle("is-unknown", !known);
  if (known) bar.setAttribute("aria-valuenow", String(Math.round(percent)));
  else bar.removeAttribute("aria-valuenow");
}

export function showError(element, error) {
  element.textContent = error === null ? "" : error.message;
  element.hidden = error === null;
}
