"""`streamjournal init`: the stream, the bucket and the lease table, one file for each."""

from streamjournal.admin.init.initialise import InitResult, initialise

__all__ = ["InitResult", "initialise"]
