"""The data sets of the course: each is a function of its sizes and a seed.

The default sets come with scikit-learn and need no network; the classical ones are downloaded once.
"""

from bncourse.data.embedded import digits, photo_digits, photographs
from bncourse.data.examples import DataSet, Examples

DATA_SETS = {"digits": digits, "photo_digits": photo_digits}


def load(name: str, **options) -> DataSet:
    """The data set called ``name``, so that an experiment can take its data set as a word.

    Args:
        name: one of the names in ``DATA_SETS``.
        options: passed on to the function of that name (``train``, ``test``, ``seed``).

    Raises:
        ValueError: there is no such data set.
    """
    if name not in DATA_SETS:
        raise ValueError(f"name must be one of {', '.join(DATA_SETS)}; got {name!r}")
    return DATA_SETS[name](**options)


__all__ = ["DATA_SETS", "DataSet", "Examples", "digits", "load", "photo_digits", "photographs"]
