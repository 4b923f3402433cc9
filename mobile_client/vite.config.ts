import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import preact from "@preact/preset-vite";
import { defineConfig, type Plugin } from "vite";

// `npm run dev` serves the client with hot reload and passes everything else to a running server.
const SERVER = process.env.DARKROOM_URL ?? "http://localhost:7860";
const ROUTES =
  "/txt2img /img2img /inpaint /jobs /events /images /models /schedulers /loras /pair /me /tokens /readyz /healthz /docs";

// Where the server looks for the built client.
const OUT = "../server/darkroom/client";

/** A phone on a bad connection waits for every byte of this before it shows anything. */
const MAX_GZIPPED_FIRST_JS = 56 * 1024;

const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };

export default defineConfig({
  plugins: [preact({ devToolsEnabled: false }), precache(), weigh()],
  define: { __VERSION__: JSON.stringify(version) },
  build: {
    target: "es2022",
    outDir: OUT,
    emptyOutDir: true,
    // Under the server's content security policy nothing may be inlined.
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      input: { app: "index.html", sw: "src/sw.ts" },
      output: {
        // The service worker's address must stay the same; its scope is all beneath it.
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
  server: { proxy: Object.fromEntries(ROUTES.split(" ").map((path) => [path, SERVER])) },
  test: { environment: "node", include: ["tests/**/*.test.{ts,tsx}"] },
} as Parameters<typeof defineConfig>[0]);

/** Tells the service worker which files make up the shell, and a name for just this set. */
function precache(): Plugin {
  return {
    name: "precache",
    apply: "build",
    generateBundle(_, bundle) {
      const worker = bundle["sw.js"];
      if (worker?.type !== "chunk") throw new Error("there is no sw.js");
      const files = Object.keys(bundle).filter((name) => name.startsWith("assets/"));
      const page = bundle["index.html"];
      const digest = createHash("sha256").update(
        page?.type === "asset" ? page.source : files.join(),
      );
      worker.code = worker.code
        .replace(/["'`]__SHELL__["'`]/, JSON.stringify(["/", ...files.map((name) => `/${name}`)]))
        .replace("__BUILD__", digest.digest("hex").slice(0, 12));
    },
  };
}

/** Fails the build when the client has grown too heavy. */
function weigh(): Plugin {
  return {
    name: "weigh",
    apply: "build",
    writeBundle(_, bundle) {
      const first = new Set<string>();
      const collect = (name: string) => {
        const file = bundle[name];
        if (file?.type !== "chunk" || first.has(name)) return;
        first.add(name);
        file.imports.forEach(collect);
      };
      for (const file of Object.values(bundle)) {
        if (file.type === "chunk" && file.isEntry && file.name === "app") collect(file.fileName);
      }
      const bytes = [...first].reduce((sum, name) => {
        const file = bundle[name];
        return sum + (file?.type === "chunk" ? gzipSync(file.code).length : 0);
      }, 0);
      const most = MAX_GZIPPED_FIRST_JS;
      const said = `${(bytes / 1024).toFixed(1)} KiB of JavaScript, gzipped, at the first load`;
      if (bytes > most) throw new Error(`${said}: more than the ${most / 1024} that are allowed`);
      console.log(said);
    },
  };
}
