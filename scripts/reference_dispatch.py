#!/usr/bin/env python3
"""Tasks that do nothing with Ray, for `biassweep-bench dispatch --python`.

usage: reference_dispatch.py TASKS

Starts a local Ray with two processors, runs 2000 tasks to warm up, then TASKS, and prints one line,
{"version": ..., "tasks_per_s": ..., "cpu_ms_per_task": ...}: processor time of all of Ray's processes.
"""
import json
import os
import sys
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray


def descendants(root):
    """The processes that come from `root`, itself included (Linux)."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass  # it has ended meanwhile
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += [child for child, parent in parents.items() if parent == process]
    return found


def cpu_seconds():
    ticks = 0
    for process in descendants(os.getpid()):
        try:
            with open(f"/proc/{process}/stat") as file:
                ticks += sum(int(part) for part in file.read().rsplit(")", 1)[1].split()[11:15])
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


@ray.remote
def nothing(number):
    return number


count = int(sys.argv[1])
ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1",
         object_store_memory=100 << 20, log_to_driver=False, logging_level="ERROR")
ray.get([nothing.remote(number) for number in range(2000)])
cpu, start = cpu_seconds(), time.perf_counter()
total = sum(ray.get([nothing.remote(number) for number in range(count)]))
seconds = time.perf_counter() - start
if total != count * (count - 1) // 2:
    sys.exit("Ray lost a result")
print(json.dumps({
    "version": ray.__version__,
    "tasks_per_s": count / seconds,
    "cpu_ms_per_task": (cpu_seconds() - cpu) / count * 1000,
}))
ray.shutdown()
