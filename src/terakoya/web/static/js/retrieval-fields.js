// The fields of how a collection is searched, in one fieldset: read and filled.

export function readSettings(fieldset) {
  const inputs = [...fieldset.querySelectorAll("[data-setting]")];
  return Object.fromEntries(inputs.map((input) => [input.dataset.setting, input.type === "number" ? Number(input.value) : input.value]));
}

export function fillSettings(fieldset, settings) {
  for (const input of fieldset.querySelectorAll("[data-setting]")) {
    if (input.dataset.setting in settings) input.value = settings[input.dataset.setting];
  }
}

/** What tells two settings apart, in a word or two. */
export function nameOf(settings) {
  const parts = [settings.fusion, settings.dense_weight];
  if (settings.fusion === "rrf") parts.push(`k ${settings.rrf_k}`);
  return [...parts, settings.candidates].join(" · ");
}
