"""Real processes, killed, stopped and continued at random; afterwards every promise is checked.

data flows so:

    programs/emitter ──ledger──▶ ┐
    programs/tail ────lines────▶ ├─ evidence ──▶ checks ──▶ report
    programs/reader ──verdicts─▶ ┤
    journals, leases, stderr ──▶ ┘

`run` plays one round on one backend: `cast` holds its processes, `faults` does them harm.
"""
