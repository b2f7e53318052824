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


def violations(page, context=None, **options) -> list[str]:
    """Its serious violations: the rule, the element, and what is wrong with it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context, {"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} {node['any'][:1] and node['any'][0]['message']}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


def pale(page) -> list[str]:
    """The texts whose colours do not differ enough: of thousands that look alike three are tried, the others hidden.

    Axe looks for what lies behind a text in all that is shown, also in what it is told to leave out.
    """
    page.evaluate(REPEATED)
    hidden = page.add_style_tag(content="[data-again] { display: none !important }")
    found = violations(page, runOnly=COLOURS, preload=False)
    hidden.evaluate("style => style.remove()")
    return found


def all_but_pale(page) -> list[str]:
    return violations(page, rules={rule: {"enabled": False} for rule in COLOURS})
