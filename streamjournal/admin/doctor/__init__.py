"""`streamjournal doctor`: what is there, what is missing, and what to do about it; one file for each part."""

from streamjournal.admin.doctor.check import Check
from streamjournal.admin.doctor.diagnose import Diagnosis, diagnose

__all__ = ["Check", "Diagnosis", "diagnose"]
