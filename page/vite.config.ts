import { defineConfig } from "vitest/config";

// `npm run dev` shows the page while it is written, beside a service that runs elsewhere.
const service = process.env["SERVICE"] ?? "http://127.0.0.1:8000";
const routes = ["/models", "/sessions", "/predict", "/explain", "/health", "/metrics", "/stream", "/openapi.json", "/docs"];

// As the service sends it: what breaks it is seen here too.
const policy =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; worker-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const proxy = Object.fromEntries(routes.map((route) => [route, { target: service, ws: route === "/stream" }]));

export default defineConfig({
  base: "./", // behind a proxy the page may live below a path
  build: {
    outDir: "../service/http/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the page's policy has no data: addresses
    modulePreload: { polyfill: false },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  server: { proxy },
  preview: { proxy, headers: { "Content-Security-Policy": policy } },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
