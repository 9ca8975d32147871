"""Asks the worker in this container for a page: `python -m journal_worker.healthcheck [/readyz]`.

Exits with 0 if it answers 200, else with 1 and what it says. `/healthz` unless told otherwise.
"""

import http.client
import os
import sys


def main() -> int:
    """Ask, print the answer, and give the exit code."""
    page = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    port = os.environ.get("STREAMJOURNAL_METRICS_PORT")
    if not port:
        sys.stdout.write("STREAMJOURNAL_METRICS_PORT is not set, so there is nothing to ask\n")
        return 1
    connection = http.client.HTTPConnection(_address(), int(port), timeout=4)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        sys.stdout.write(answer.read().decode("utf-8", "replace"))
    except OSError as problem:
        sys.stdout.write(f"the worker does not answer at port {port}: {problem}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


def _address() -> str:
    """Where the worker listens; an address that stands for all of them is reached by the loopback's."""
    address = os.environ.get("STREAMJOURNAL_METRICS_ADDRESS") or "127.0.0.1"
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound


if __name__ == "__main__":
    sys.exit(main())
