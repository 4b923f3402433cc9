"""Asks /healthz again and again from a process of its own, until told to stop.

    python -m tests.faults.probe HOST PORT < pipe

Writes the seconds that each answer took, as JSON, when standard input ends.
"""

import http.client
import json
import select
import sys
import time

PAUSE_S = 0.01


def main(host: str, port: int) -> None:
    took: list[float] = []
    connection = http.client.HTTPConnection(host, port, timeout=60)
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        began = time.perf_counter()
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        took.append(time.perf_counter() - began)
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
