"""One request over HTTP against the bare pipeline call: what the queue, SQL and HTTP cost."""

import time

from benchmarks import load, servers, stock
from benchmarks.baseline import TINTYPE
from benchmarks.figure import Figure, at_most, ratios
from benchmarks.suite import Effort, Suite

STEPS, GUIDANCE = 20, 3.0

HOW = f"""\
One client, one request of {STEPS} steps with tintype's defaults: a blocking `POST /txt2img` that
returns the PNG, compared with a call of the stock pipeline in the benchmark's process, without
HTTP, queue, disk and PNG encoding. In turns; the two times of each turn are divided."""


def measure(effort: Effort) -> list[Figure]:
    pipeline = stock.load(TINTYPE, device=stock.pick_device())

    def bare() -> float:
        began = time.perf_counter()
        stock.develop(pipeline, 1, steps=STEPS, guidance_scale=GUIDANCE)
        return time.perf_counter() - began

    with servers.darkroom() as server:
        server.until("/readyz")
        served, called = [], []
        for _ in range(effort.pictures + 1):
            served.append(load.one(server, load.txt2img(STEPS, seed=stock.SEED)))
            called.append(bare())
    over_http, in_process = tuple(served[1:]), tuple(called[1:])  # the first warms up
    return [
        Figure(
            f"one request over HTTP ÷ bare pipeline call, {STEPS} steps",
            ratios(over_http, in_process),
            "×",
            at_most(1.05),
            at_most(1.0),
        ),
        Figure(f"txt2img, {STEPS} steps, over HTTP", over_http, "s", at_most(3)),
    ]


SUITE = Suite("single", "One request", HOW, measure)
