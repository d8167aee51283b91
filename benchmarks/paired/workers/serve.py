"""The other end of worker.hpp: reads a request a line, answers a line.

{"prepare": {...}} -> {"id": 1}; {"time": 1, "calls": 10} -> {"seconds": ...}, of all calls; {"release": 1} -> {}.
What a library prints goes to stderr. Times are processor time of the whole process with one thread, else wall time.
"""
import json
import os
import sys
import time

threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(threads)
clock = time.process_time if threads == 1 else time.perf_counter

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


class Refused(Exception):
    """The peer does not do what is asked."""


def fail(reason):
    """Ends before serving: the reason stands in the tables."""
    print(json.dumps({"error": reason}), file=answers)
    os._exit(1)


# A library that cannot be imported, for one.
sys.excepthook = lambda kind, error, _: fail(f"{kind.__name__}: {str(error).strip().split(chr(10))[0]}")


def timed(call, calls):
    start = clock()
    for _ in range(calls):
        call()
    return clock() - start


def timed_after(prepare, call, calls):
    """For what can be done only once to each object: prepare() is not counted."""
    seconds = 0.0
    for _ in range(calls):
        made = prepare()
        start = clock()
        call(made)
        seconds += clock() - start
        del made
    return seconds


def serve(version, prepare):
    """prepare(description) gives seconds(calls), a function."""
    print(json.dumps({"version": version}), file=answers)
    jobs = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                number = max(jobs, default=0) + 1
                jobs[number] = prepare(request["prepare"])
                answer = {"id": number}
            elif "time" in request:
                answer = {"seconds": jobs[request["time"]](request["calls"])}
            else:
                jobs.pop(request["release"], None)
                answer = {}
        except Exception as error:  # whatever a library raises is the answer
            text = str(error).strip().split("\n")[0]
            answer = {"error": text if isinstance(error, Refused) else f"{type(error).__name__}: {text}"}
        print(json.dumps(answer), file=answers)
