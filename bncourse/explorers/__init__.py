"""The book's interactive figures: each function draws one and returns it as an ``Explorer``.

A figure's file is loaded when the figure is first asked for, so that a notebook depends only on those that it shows.
"""

from importlib import import_module

__all__ = [
    "activations",
    "axes",
    "batch_noise",
    "batch_size",
    "running_statistics",
    "scale_and_shift",
    "variance_shift",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.figures.{name}"), name)


def __dir__() -> list[str]:
    return __all__
