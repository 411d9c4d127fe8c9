// Numbers, sizes and times as people read them.

import { _, language } from "./i18n.js";

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });

export const count = (value) => whole.format(value);

export function decimal(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function percent(value, digits = 1) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return `${decimal(value * 100, digits)}%`;
}

/** A learning rate: 0.001, 2.5e-5. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0 || Math.abs(value) >= 1e-3) return String(Number(value.toPrecision(3)));
  return value.toExponential(2).replace(/\.?0+e/, "e");
}

export function bytes(value) {
  if (!Number.isFinite(value)) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let index = 0;
  let size = value;
  while (size >= 1000 && index < units.length - 1) {
    size /= 1000;
    index += 1;
  }
  return `${index === 0 ? size : decimal(size, size < 10 ? 1 : 0)} ${units[index]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const total = Math.max(0, Math.round(seconds));
  const hours = Math.floor(total / 3600);
  const minutes = Math.floor((total % 3600) / 60);
  if (hours) return _("%(h)s h %(m)s min", { h: hours, m: minutes });
  if (minutes) return _("%(m)s min %(s)s s", { m: minutes, s: total % 60 });
  return _("%(s)s s", { s: total });
}

export function moment(iso) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" }).format(new Date(iso));
}
