"""Compare an answer with what was expected, and recognize the usual mistake behind a wrong one."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class CaseFailed(AssertionError):
    """An answer failed a case: a message that says what is wrong and, where one is known, the mistake behind it."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message if hint is None else f"{message}\nHint: {hint}")
        self.message = message
        self.hint = hint


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers of the given shape, always the same for a seed, on the CPU."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu").to(dtype)


def two_slips(*hints: str) -> str:
    """The hint for several mistakes at once; empty ones are none."""
    given = [hint for hint in hints if hint]
    return given[0] if len(given) == 1 else " ".join(["Two slips at once.", *given]) if given else ""


@contextmanager
def in_its_place(answer: Any, **right: Any) -> Iterator[None]:
    """While an answer that calls the learner's earlier answers is judged, these are right: no follow-up errors."""
    names = getattr(inspect.unwrap(answer), "__globals__", {})
    before = {name: names[name] for name in right if name in names}
    names.update({name: right[name] for name in before})
    try:
        yield
    finally:
        names.update(before)


def require(condition: bool, message: str, hint: str | None = None) -> None:
    """Raise ``CaseFailed`` unless the condition holds."""
    if not condition:
        raise CaseFailed(message, hint)


def expect(
    got: Any,
    expected: Any,
    what: str,
    mistakes: Mapping[str, Any] | None = None,
    *,
    otherwise: str | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> None:
    """Compare numbers, or tensors of any shape, with what was expected.

    Args:
        got: what the learner's code returned.
        expected: the right value: a number or a tensor.
        what: names the value in the message, as in "the running mean".
        mistakes: for each usual mistake its explanation and the value it leads to.
        otherwise: the hint for a value that none of them explains.
        rtol, atol: the allowed difference is ``atol + rtol * |expected|``.

    Raises:
        CaseFailed: if ``got`` is not a number or a tensor, has another shape, or differs.
    """
    expected = _as_tensor(expected)
    got = _as_tensor(got, what)
    require(
        got.shape == expected.shape,
        f"{what} should have shape {tuple(expected.shape)}, got {tuple(got.shape)}.",
        "Reducing over an axis removes it unless you pass keepdim=True; check which axes you reduce over.",
    )
    if _close(got, expected, rtol, atol):
        return
    hints = [hint for hint, value in (mistakes or {}).items() if _close(got, _as_tensor(value), rtol, atol)]
    raise CaseFailed(_difference(got, expected, what), hints[0] if hints else otherwise)


def expect_number(got: Any, what: str) -> float:
    """The answer as a float.

    Raises:
        CaseFailed: if it is not one number.
    """
    value = _as_tensor(got, what)
    require(value.numel() == 1, f"{what} should be one number; got a tensor of shape {tuple(value.shape)}.")
    return value.item()


def expect_items(got: Any, count: int, what: str) -> Sequence[Any]:
    """The answer as a tuple of ``count`` values.

    Raises:
        CaseFailed: if it is not a tuple or list of that length.
    """
    require(
        isinstance(got, tuple | list) and len(got) == count,
        f"{what} should be a tuple of {count} values; got {_describe(got)}.",
    )
    return got


def _as_tensor(value: Any, what: str = "the value") -> Tensor:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    require(is_number or hasattr(value, "__array__"), f"{what} should be a number or a tensor; got {_describe(value)}.")
    return torch.as_tensor(value).detach().to("cpu", torch.float64)


def _close(got: Tensor, expected: Tensor, rtol: float, atol: float) -> bool:
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=rtol, atol=atol)


def _difference(got: Tensor, expected: Tensor, what: str) -> str:
    if expected.dim() == 0:
        return f"{what} should be {expected.item():.6g}, got {got.item():.6g}."
    if not got.isfinite().all():
        count = int((~got.isfinite()).sum())
        return f"{what} should be finite, got NaN or infinity at {count} of {got.numel()} values."
    worst = int((got - expected).abs().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), got.shape))
    where = index[0] if len(index) == 1 else index
    return (
        f"{what} should be {expected.flatten()[worst]:.6g} at index {where}, where the difference is largest, "
        f"got {got.flatten()[worst]:.6g}."
    )


def _describe(value: Any) -> str:
    if value is None:
        return "None (is a return missing?)"
    if value is ...:
        return "... (not answered yet)"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"a {type(value).__name__}"
