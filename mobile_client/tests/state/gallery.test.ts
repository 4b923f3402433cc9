import { signal } from "@preact/signals";
import { beforeEach, describe, expect, it } from "vitest";
import { GalleryState, jobIdOf, type Kept } from "../../src/lib/state/gallery";
import type { Api } from "../../src/lib/transport/api";
import { Problem, Unreachable } from "../../src/lib/transport/http";
import type { Job, JobPage, Me } from "../../src/lib/transport/types";

let server: FakeServer;
let gallery: GalleryState;
let due: (() => void)[];

/** Jobs newest first, in pages; as much of the API as the gallery uses. */
class FakeServer {
  made: Job[] = [];
  deleted: string[] = [];
  refuses = new Map<string, Error>();
  down = false;

  develop(id: string, images = 1, client = "device:1"): void {
    this.made.unshift({
      id,
      client: "phone", // two devices may have had one name
      client_id: client,
      created_at: "2026-05-28T10:00:00Z",
      request: { prompt: `picture ${id}` },
      images: Array.from({ length: images }, (_, index) => ({
        id: `${id}-${index}`,
        width: 128,
        height: 128,
      })),
    } as unknown as Job);
  }

  readonly api = {
    jobs: async (
      cursor: string | null = null,
      limit = 20,
      client: string | null = null,
    ): Promise<JobPage> => {
      if (this.down) throw new Unreachable("down");
      const made = this.made.filter((job) => client === null || job.client_id === client);
      const from = cursor === null ? 0 : made.findIndex((job) => job.id === cursor) + 1;
      const jobs = made.slice(from, from + limit);
      const last = jobs.at(-1);
      const isEnd = from + limit >= made.length;
      return { jobs, next_cursor: isEnd || !last ? null : last.id };
    },
    deleteImage: async (id: string) => {
      const refusal = this.refuses.get(id);
      if (refusal) throw refusal;
      this.deleted.push(id);
      for (const job of this.made) job.images = job.images.filter((image) => image.id !== id);
    },
    job: async (id: string) => {
      if (this.down) throw new Unreachable("down");
      const found = this.made.find((job) => job.id === id);
      if (!found) throw new Problem(404, "urn:x", "Not found", "");
      return found;
    },
  } as unknown as Api;
}

const me = signal<Me | null>(null);

beforeEach(() => {
  server = new FakeServer();
  due = [];
  me.value = {
    client: "token:1",
    client_id: "device:1",
    device: "1",
    name: "phone",
    scope: "use",
  };
  gallery = new GalleryState(server.api, {
    me,
    wait: (run) => {
      due.push(run);
      return () => {
        due = due.filter((each) => each !== run);
      };
    },
  });
});

const ids = () => gallery.pictures.value.map(({ id }) => id);

async function passes() {
  for (const run of due.splice(0)) run();
  await new Promise((resolve) => setTimeout(resolve));
}

describe("scrolling", () => {
  it("shows all pictures newest first, page by page", async () => {
    for (let index = 0; index < 120; index += 1) server.develop(`j${index}`);
    await gallery.refresh();
    expect(ids()).toHaveLength(50);
    expect(ids()[0]).toBe("j119-0");
    await gallery.more();
    await gallery.more();
    expect(ids()).toHaveLength(120);
    expect(new Set(ids()).size).toBe(120);
    expect(gallery.complete.value).toBe(true);
  });

  it("goes on past jobs that left no picture", async () => {
    server.develop("old");
    for (let index = 0; index < 130; index += 1) server.develop(`failed${index}`, 0);
    await gallery.refresh();
    expect(ids()).toEqual(["old-0"]);
  });

  it("asks once, however often the thumb arrives at the end", async () => {
    for (let index = 0; index < 70; index += 1) server.develop(`j${index}`);
    await gallery.refresh();
    await Promise.all([gallery.more(), gallery.more(), gallery.more()]);
    expect(ids()).toHaveLength(70);
  });

  it("says when the server is not there, and goes on when it is back", async () => {
    server.develop("a");
    server.down = true;
    await gallery.refresh();
    expect(gallery.failed.value).toBe(true);
    server.down = false;
    await gallery.refresh();
    expect(gallery.failed.value).toBe(false);
    expect(ids()).toEqual(["a-0"]);
  });
});

describe("refreshing", () => {
  it("puts what is new on top and keeps what was scrolled to", async () => {
    for (let index = 0; index < 70; index += 1) server.develop(`j${index}`);
    await gallery.refresh();
    await gallery.more();
    server.develop("new", 2);
    await gallery.refresh();
    expect(ids().slice(0, 3)).toEqual(["new-0", "new-1", "j69-0"]);
    expect(ids()).toHaveLength(72);
  });

  it("begins anew where more has happened than a page holds", async () => {
    server.develop("old");
    await gallery.refresh();
    for (let index = 0; index < 60; index += 1) server.develop(`n${index}`);
    await gallery.refresh();
    expect(ids()).toHaveLength(50);
    await gallery.more();
    expect(ids().at(-1)).toBe("old-0");
    expect(ids()).toHaveLength(61);
  });

  it("drops what another device deleted", async () => {
    server.develop("a");
    server.develop("b");
    await gallery.refresh();
    await server.api.deleteImage("b-0");
    await gallery.refresh();
    expect(ids()).toEqual(["a-0"]);
  });
});

describe("deleting", () => {
  const kept: Kept[] = [];
  const onKept = (what: Kept) => kept.push(what);

  beforeEach(async () => {
    kept.length = 0;
    for (const id of ["a", "b", "c"]) server.develop(id);
    await gallery.refresh();
  });

  it("hides at once and deletes later", async () => {
    gallery.remove(["a-0", "c-0"], onKept);
    expect(ids()).toEqual(["b-0"]);
    expect(server.deleted).toEqual([]);
    await passes();
    expect(server.deleted).toEqual(["a-0", "c-0"]);
    expect(ids()).toEqual(["b-0"]);
    expect(kept).toEqual([]);
  });

  it("can be undone before it is sent, and is not sent then", async () => {
    gallery.remove(["b-0"], onKept).undo();
    expect(ids()).toEqual(["c-0", "b-0", "a-0"]);
    await passes();
    expect(server.deleted).toEqual([]);
  });

  it("sends the first when a second begins", async () => {
    const first = gallery.remove(["a-0"], onKept);
    gallery.remove(["b-0"], onKept);
    first.undo();
    await passes();
    expect(server.deleted).toEqual(["a-0", "b-0"]);
  });

  it("brings back what could not be deleted, and says why", async () => {
    server.refuses.set("b-0", new Problem(409, "urn:x", "In use", ""));
    gallery.remove(["a-0", "b-0"], onKept);
    await passes();
    expect(ids()).toEqual(["c-0", "b-0"]);
    expect(kept).toEqual([{ count: 1, inUse: true }]);
  });
});

describe("whose pictures", () => {
  beforeEach(async () => {
    server.develop("mine");
    server.develop("theirs", 1, "device:2");
    await gallery.refresh();
  });

  it("are those the server shows to a device", () => {
    expect(ids()).toEqual(["theirs-0", "mine-0"]);
  });

  it("are an owner's own, until they want to see everyone's or one device's", async () => {
    me.value = {
      client: "token:1",
      client_id: "device:1",
      device: "1",
      name: "phone",
      scope: "own",
    };
    expect(ids()).toEqual(["mine-0"]);
    await gallery.show("everyone");
    expect(ids()).toEqual(["theirs-0", "mine-0"]);
    await gallery.show({ id: "device:2", name: "phone" });
    expect(ids()).toEqual(["theirs-0"]);
    await gallery.show(null);
    expect(ids()).toEqual(["mine-0"]);
  });
});

describe("one picture", () => {
  it("knows its neighbours", async () => {
    for (const id of ["a", "b", "c"]) server.develop(id);
    await gallery.refresh();
    expect(gallery.beside("b-0")).toEqual({ newer: "c-0", older: "a-0" });
    expect(gallery.beside("c-0").newer).toBeUndefined();
    expect(gallery.beside("unknown-0")).toEqual({ newer: undefined, older: undefined });
  });

  it("knows its job, and asks again after a failure", async () => {
    server.develop("a", 2);
    expect(jobIdOf("a-1")).toBe("a");
    server.down = true;
    await expect(gallery.jobOf("a-1")).rejects.toBeInstanceOf(Unreachable);
    server.down = false;
    expect((await gallery.jobOf("a-1")).id).toBe("a");
  });
});
