"""A museum of real bugs around normalization: each broken, fixed, and with its damage measured.

``SPECIMENS`` has those that the doctor's authors could know of. ``HELD_OUT`` has those that somebody else wrote after
the doctor's rules were frozen (``held_out.py``), each in two networks.
"""

from importlib import import_module
from importlib.util import find_spec

from bncourse.museum.specimen import REGISTERED, Patient, Specimen, Thread, specimen

__all__ = ["HELD_OUT", "SPECIMENS", "Patient", "Specimen", "Thread", "specimen"]

FAMILIES = (
    *("statistics_and_modes", "shapes_and_batches", "architecture", "optimizer", "averaging_and_loading"),
    *("distributed", "precision", "conversion", "handwritten"),
)
for _family in (*FAMILIES, "held_out"):
    if find_spec(f"{__name__}.{_family}"):
        import_module(f"{__name__}.{_family}")  # which registers its specimens

SPECIMENS = [one for one in REGISTERED if one.family != "Held out"]
HELD_OUT = [one for one in REGISTERED if one.family == "Held out"]
