"""The book's explorers, each made once for all tests."""

from functools import cache

from bncourse import explorers
from bncourse.explorers.explorer import Explorer


@cache
def explorer(name: str) -> Explorer:
    return getattr(explorers, name)()
