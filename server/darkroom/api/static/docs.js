// A file of its own, so that pages need no inline script.
window.SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: true });
