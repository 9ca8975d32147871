"""A job that has no access to any stream: it prints its entries, and whoever runs it journals them.

    streamjournal tail jobs                                                  # in one terminal
    streamjournal run --session jobs -- python docs/examples/sandbox_job.py     # in another

It needs nothing but Python 3.8 and its standard library.
"""

import random
import sys
import time


def journal(event_type, /, **details):
    """Print an entry for the journal of the session that runs this code."""
    try:
        import json
        import sys

        try:
            text = json.dumps({"event_type": event_type, "details": details}, default=repr)
        except Exception:  # odd keys, or an object inside itself: better as text than not at all
            text = json.dumps({"event_type": str(event_type), "details": {"value": repr(details)}})
        text = text.replace("===", "=\\u003d=")  # so that no value looks like a marker
        # one call, so that threads do not mix
        sys.stdout.write("===JOURNAL_ENTRY===\n" + text + "\n===JOURNAL_END===\n")
        sys.stdout.flush()
    except Exception:  # a closed stdout, say: it must not end the program
        pass


def main():
    pause = float(sys.argv[1]) if len(sys.argv) > 1 else 0.3
    chance = random.Random(7)
    prices = [chance.gauss(20, 3) for _ in range(5000)]
    journal("DATA_LOADED", rows=len(prices))
    loss = 1.0
    for epoch in range(1, 6):
        print(f"\repoch {epoch}/5 ", end="", flush=True)
        time.sleep(pause)
        loss *= chance.uniform(0.5, 0.8)
        journal("EPOCH_FINISHED", epoch=epoch, loss=round(loss, 4))
    print(f"\ndone, loss {loss:.4f}")
    journal("MODEL_SAVED", path="model.bin", loss=round(loss, 4))


if __name__ == "__main__":
    main()
