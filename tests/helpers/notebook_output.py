"""How JupyterLab puts an output into a page that is already there."""

__all__ = ["insert"]

INSERT = """([place, html]) => {
    const output = document.querySelector(place).appendChild(document.createElement("div"));
    output.innerHTML = html;
    for (const old of output.querySelectorAll("script")) {
        const script = document.createElement("script");
        for (const {name, value} of old.attributes) script.setAttribute(name, value);
        script.textContent = old.textContent;
        old.replaceWith(script);
    }
}"""


def insert(page, place: str, html: str) -> None:
    """Set an output's HTML first, at the end of ``place``, and then put new copies of its scripts in their places."""
    page.evaluate(INSERT, [place, html])
