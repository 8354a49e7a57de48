# As split.c. Turns are long against the time between two samples, so that chance decides little, and of many lengths,
# so that they do not beat with it.
import os
import sys
import time

sink = 1


def seven_parts(times):
    global sink
    x = sink
    for _ in range(7 * 40_000 * times):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
    sink = x


def three_parts(times):
    global sink
    x = sink
    for _ in range(3 * 40_000 * times):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
    sink = x


def work(rounds):
    """Return how much of the time on the clock the first one took: 0.7 where the program always has a CPU."""
    seven = three = 0
    for turn in range(rounds):
        times = 1 + turn * 5 % 13
        begun = time.perf_counter_ns()
        seven_parts(times)
        middle = time.perf_counter_ns()
        three_parts(times)
        seven, three = seven + middle - begun, three + time.perf_counter_ns() - middle
    return seven / (seven + three)


os.write(1, b"ready\n")
os.read(0, 1)
begun = time.process_time_ns()
seven = work(int(sys.argv[1]))
os.write(1, b'{"cpu_ns": %d, "seven": %f}\n' % (time.process_time_ns() - begun, seven))
while os.read(0, 1):
    pass
