"""A program that sends its profiles with Pyroscope's own client, as its users do: three parts of its time to one."""

import os
import time

import pyroscope


def spend_three(until):
    while time.thread_time() < until:
        pass


def spend_one(until):
    while time.thread_time() < until:
        pass


def main():
    pyroscope.configure(
        application_name=os.environ["PYROSCOPE_APPLICATION_NAME"],
        server_address=os.environ["PYROSCOPE_SERVER_ADDRESS"],
        tags={"version": "v1.1"},
        upload_interval=1,
    )
    begun = time.thread_time()
    for turn in range(8):
        spend_three(begun + turn * 0.4 + 0.3)
        spend_one(begun + turn * 0.4 + 0.4)
    pyroscope.shutdown()


main()
