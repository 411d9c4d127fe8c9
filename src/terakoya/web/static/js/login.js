import { call } from "./api.js";
import { byId, showError } from "./dom.js";

const form = byId("login-form");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  showError(byId("login-error"), null);
  try {
    await call("POST", "/login", { key: byId("key").value });
    location.assign(form.dataset.target);
  } catch (error) {
    showError(byId("login-error"), error);
    byId("key").select();
  }
});
