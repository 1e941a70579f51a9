"""A process that does one work, told by lines on stdin which contender, and answers in JSON."""

import contextlib
import ctypes
import gc
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path

from benchmarks.contenders import COMPARISONS

TURN = 0.05  # seconds of calls, where one is shorter


def resident(what: str) -> float:
    """Return the memory of this process, now (`VmRSS`) or at its peak (`VmHWM`), in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {what}")


def extra_memory(call) -> float:
    """Return by how many MB the process grows at most while ``call`` runs."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or memory freed before would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    before = resident("VmRSS")
    call()
    return max(0.0, resident("VmHWM") - before)


def main(comparison: str, work: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what contenders print
    warnings.simplefilter("ignore")
    prepare, contenders = COMPARISONS[comparison]
    subject = prepare(work)
    calls = {}

    def answer(command: str, name: str) -> float:
        if command == "memory":
            return extra_memory(calls[name])
        start = time.perf_counter()
        if command == "load":
            calls[name] = contenders[name](*subject)
            return time.perf_counter() - start
        result = calls[name]()
        elapsed = time.perf_counter() - start
        del result
        if command == "first" or elapsed > TURN:
            return elapsed
        times = []  # of a call after calls: the first one finds the caches cold
        while sum(times) < TURN:
            start = time.perf_counter()
            result = calls[name]()
            times.append(time.perf_counter() - start)
            del result
        return statistics.median(times)

    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(*json.loads(line))
        except Exception as error:
            reply = type(error).__name__
        gc.collect()
        print(json.dumps(reply), file=answers, flush=True)
    for call in calls.values():
        with contextlib.suppress(AttributeError):
            call.manager.__exit__(None, None, None)


if __name__ == "__main__":
    main(*sys.argv[1:])
