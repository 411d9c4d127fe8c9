// The API's description, shown by Swagger UI. A classic script: its bundle is one.
addEventListener("DOMContentLoaded", () => {
  window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger", validatorUrl: null, deepLinking: false, defaultModelsExpandDepth: -1 });
});
