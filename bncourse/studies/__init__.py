"""Experiments of single chapters that are too long for a notebook cell."""
