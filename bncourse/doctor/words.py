"""Numbers and names as the findings say them."""

from collections.abc import Collection

__all__ = ["deviations", "first_line", "freezing", "number", "of", "plural"]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def deviations(value: float) -> str:
    """Such as "0.62 standard deviations"; what is shown as 1 has no plural."""
    said = number(value)
    return f"{said} standard deviation" if said == "1" else f"{said} standard deviations"


def plural(count: int, noun: str) -> str:
    ending = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{ending}"


def of(some, all_of_them, noun: str = "batch norm", verb: str = "") -> str:
    """Such as "3 of 20 batch norms have": a plural verb, which becomes singular for one."""
    said = f"{len(some)} of {plural(len(all_of_them), noun)}"
    singular = {"have": "has", "are": "is", "were": "was"}.get(verb, f"{verb}s")
    return f"{said} {singular if len(some) == 1 else verb}" if verb else said


def freezing(some: Collection[str], all_of_them: Collection[str]) -> str:
    """The call of ``surgery.freeze`` for some of the norms: by the part of the model that has these and no others."""
    if len(some) == len(all_of_them):
        return "surgery.freeze(model)"
    part = next(iter(some), "")
    while part:
        if {name for name in all_of_them if f"{name}.".startswith(f"{part}.")} == set(some):
            return f"surgery.freeze(model, where={part!r})"
        part = part.rpartition(".")[0]
    return "surgery.freeze(model, where=...), of the frozen part"


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
