"""A museum of real bugs around normalization: each broken, fixed, and with its damage measured.

``SPECIMENS`` has those that the doctor's authors could know. ``HELD_OUT`` has those that somebody else wrote after the
doctor's rules were frozen (``held_out.py``), each in two networks.
"""

from importlib.util import find_spec

from bncourse.museum import statistics_and_modes  # noqa: F401
from bncourse.museum.specimen import REGISTERED, Patient, Specimen, Thread, specimen

if find_spec("bncourse.museum.held_out"):
    from bncourse.museum import held_out  # noqa: F401

__all__ = ["HELD_OUT", "SPECIMENS", "Patient", "Specimen", "Thread", "specimen"]

SPECIMENS = [one for one in REGISTERED if one.family != "Held out"]
HELD_OUT = [one for one in REGISTERED if one.family == "Held out"]
