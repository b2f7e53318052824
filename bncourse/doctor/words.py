"""Numbers and names as the findings say them."""

__all__ = ["first_line", "number", "of", "plural"]


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}".replace("e+0", "e").replace("e+", "e")


def plural(count: int, noun: str) -> str:
    ending = "es" if noun.endswith(("s", "ch")) else "s"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{ending}"


def of(some, all_of_them, noun: str = "batch norm", verb: str = "") -> str:
    """Such as "3 of 20 batch norms have": a plural verb, which becomes singular for one."""
    said = f"{len(some)} of {plural(len(all_of_them), noun)}"
    singular = {"have": "has", "are": "is", "were": "was"}.get(verb, f"{verb}s")
    return f"{said} {singular if len(some) == 1 else verb}" if verb else said


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
