"""`python -m benchmarks`: measure, print, and with `--write` record."""

import argparse
import signal
import sys
import time

from benchmarks import (
    accepting,
    engine,
    estimates,
    explain,
    gpu,
    growth,
    large,
    listing,
    loras,
    openvino,
    page,
    previews,
    shortcuts,
    single,
    startup,
    storing,
    streams,
    traffic,
    waiting,
    workers,
)
from benchmarks.peers import suite as peers
from benchmarks.servers import ROOT
from benchmarks.suite import FULL, QUICK, Suite

PAGE = ROOT / "docs" / "benchmarks.md"
SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        startup.SUITE,
        single.SUITE,
        engine.SUITE,
        loras.SUITE,
        *traffic.SUITES,
        openvino.SUITE,
        accepting.SUITE,
        waiting.SUITE,
        listing.SUITE,
        growth.SUITE,
        streams.SUITE,
        estimates.SUITE,
        previews.SUITE,
        explain.SUITE,
        storing.SUITE,
        shortcuts.SUITE,
        large.SUITE,
        workers.SUITE,
        peers.SUITE,
        *gpu.SUITES,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--only", nargs="+", choices=SUITES, metavar="NAME", help=", ".join(SUITES))
    parser.add_argument("--quick", action="store_true", help="few runs: whether it works at all")
    arguments = parser.parse_args()
    if arguments.write and arguments.quick:
        parser.error("--write records figures; leave out --quick, which has too few runs")

    # Like Ctrl-C: on the way out the servers are ended, of which one is paused.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    measured = []
    usual = [name for name, suite in SUITES.items() if not suite.by_name]
    for name in arguments.only or usual:
        suite, began = SUITES[name], time.monotonic()
        print(f"{suite.title} …", flush=True)
        figures = suite.measure(QUICK if arguments.quick else FULL)
        print(f"{page.section(suite, figures)}\n\n{time.monotonic() - began:.0f} s\n", flush=True)
        measured.append((suite, figures))
    if arguments.write:
        titles = [suite.title for suite in SUITES.values()]
        text = page.updated(PAGE.read_text(encoding="utf-8"), measured, titles)
        PAGE.write_text(text, encoding="utf-8")

    missed = [figure.name for _, figures in measured for figure in figures if figure.missed]
    if missed:
        raise SystemExit("beyond the limit:\n" + "\n".join(f"- {name}" for name in missed))


if __name__ == "__main__":
    main()
