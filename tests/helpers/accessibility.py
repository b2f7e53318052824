"""What axe-core finds on a page, as it stands."""

SERIOUS = {"serious", "critical"}
COLOURS = ["color-contrast", "link-in-text-block"]  # the rules that a colour scheme can break
REPEATED = """() => {
    const seen = new Map()
    const again = (one, behind) => {
        const style = getComputedStyle(one), box = one.getBoundingClientRect()
        const { color, fontSize, fontWeight, textDecorationLine, backgroundColor, backgroundImage, opacity } = style
        const own = [backgroundColor, backgroundImage, opacity].join()
        const written = [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
        const ground = own === "rgba(0, 0, 0, 0),none,1" ? behind : behind + own
        let known = written || one.children.length > 0 || ground === behind // an empty painted box may lie behind it
        if (written && box.width > 1 && box.height > 1 && style.visibility === "visible") {
            const look = [color, fontSize, fontWeight, textDecorationLine, ground].join()
            seen.set(look, (seen.get(look) ?? 0) + 1)
            known = seen.get(look) > 3
        }
        for (const child of one.children) known = again(child, ground) && known
        one.toggleAttribute("data-again", known)
        return known
    }
    again(document.body, "")
}"""
ALONE = """() => {
    window.shells = []
    for (const one of document.querySelectorAll('[data-again]:not([data-again] [data-again])')) {
        const shell = one.cloneNode(false) // others are still its second or third sibling
        shell.style.setProperty('display', 'none', 'important')
        one.replaceWith(shell)
        shells.push([shell, one])
    }
}"""
AGAIN = "() => { for (const [shell, one] of shells) shell.replaceWith(one) }"
RUN = "options => axe.run(options).then((found) => found.violations)"


def violations(page, **options) -> list[str]:
    """Its serious violations: the rule, the element, and what is wrong with it."""
    from axe_playwright_python.base import AXE_SCRIPT

    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate(RUN, {"resultTypes": ["violations"], "preload": False, **options})
    return [
        f"{one['id']}: {node['html'][:200]} {node['any'][:1] and node['any'][0]['message']}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def pale(page) -> list[str]:
    """The texts whose colours do not differ enough: of thousands that look alike three are tried, without the others.

    Axe looks for what lies behind a text in all that is there, also in what it is told to leave out.
    """
    page.evaluate(REPEATED)
    page.evaluate(ALONE)
    found = violations(page, runOnly=COLOURS)
    page.evaluate(AGAIN)
    return found


def all_but_pale(page) -> list[str]:
    return violations(page, rules={rule: {"enabled": False} for rule in COLOURS})
