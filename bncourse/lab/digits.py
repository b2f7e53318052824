"""The digits for the page: all of scikit-learn's 1,797 scans, packed into 76 kB of text."""

import re
from functools import cache

PIXELS = "abcdefghijklmnop"  # 1 to 16


@cache
def packed_digits() -> dict[str, str]:
    """Pixels and labels as text: a letter is a pixel (a = 1, ..., p = 16), a number so many pixels of 0.

    The page's ``unpackDigits`` reads it; nothing is lost.
    """
    from sklearn.datasets import load_digits

    scans = load_digits()
    text = "".join(PIXELS[pixel - 1] if pixel else "0" for pixel in scans.images.astype(int).ravel())
    return {
        "pixels": re.sub("0+", lambda zeros: str(len(zeros[0])), text),
        "labels": "".join(map(str, scans.target)),
    }
