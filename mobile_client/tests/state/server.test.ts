import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Server } from "../../src/lib/state/server";
import { MemoryPreferences } from "../../src/lib/storage";
import { Foreign, Problem, Unreachable } from "../../src/lib/transport/http";
import { FakeApi } from "../fakes";

let api: FakeApi;
let preferences: MemoryPreferences;
let server: Server;
let returns: number;

beforeEach(() => {
  vi.useFakeTimers();
  api = new FakeApi();
  preferences = new MemoryPreferences();
  returns = 0;
  server = new Server(api, preferences, () => {
    returns += 1;
  });
});

afterEach(() => vi.useRealTimers());

test("a good server is said to be there, once", async () => {
  await server.check();
  await server.check();

  expect(server.reach.value).toBe("ok");
  expect(server.me.value?.name).toBe("phone");
  expect(returns).toBe(1);
});

test("one that loads its model is asked again until it is ready", async () => {
  api.loaded = false;
  await server.check();
  expect(server.reach.value).toBe("starting");
  expect(server.open).toBe(true);

  api.loaded = true;
  await vi.advanceTimersByTimeAsync(2_000);
  expect(server.reach.value).toBe("ok");
  expect(returns).toBe(1);
});

test("one that does not answer is asked again by itself", async () => {
  api.unplug();
  await server.check();
  expect(server.reach.value).toBe("unreachable");

  api.plugIn();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(server.reach.value).toBe("ok");
  expect(returns).toBe(1);
});

test("a device that never had a token is unpaired; pairing lets it in", async () => {
  api.refuse(401);
  await server.check();
  expect(server.reach.value).toBe("unpaired");
  await expect(server.pair("BAD", "phone")).rejects.toBeInstanceOf(Problem);

  await server.pair(" GOOD-CODE ", "Ada's phone");
  expect(server.reach.value).toBe("ok");
  expect(server.me.value?.name).toBe("Ada's phone");
});

test("a device that had a token is told that it was revoked, also after a reload", async () => {
  await server.check();
  api.refuse(401);
  const next = new Server(api, preferences);
  await next.check();

  expect(next.reach.value).toBe("revoked");
});

test("other requests' failures tell about the server too", async () => {
  await server.check();
  server.report(new Problem(422, "urn:darkroom:problem:validation", "No", ""));
  expect(server.reach.value).toBe("ok");
  server.report(new Problem(502, "about:blank", "Bad Gateway", ""));
  expect(server.reach.value).toBe("unreachable");
  server.report(new Foreign("a router's page"));
  expect(server.reach.value).toBe("foreign");
});

test("an answer to any other request ends the waiting", async () => {
  api.unplug();
  await server.check();
  expect(server.reach.value).toBe("unreachable");

  api.plugIn();
  server.heard();

  expect(server.reach.value).toBe("ok");
  expect(returns).toBe(1);
});

test("a check that fails late does not contradict a newer answer", async () => {
  await server.check();
  let fail = () => {};
  api.me = () =>
    new Promise((_, reject) => {
      fail = () => reject(new Unreachable("timed out"));
    });
  const checking = server.check();
  server.heard();
  fail();
  await checking;

  expect(server.reach.value).toBe("ok");
});
