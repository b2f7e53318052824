"""What axe-core finds on a page, as it stands."""

SERIOUS = {"serious", "critical"}


def violations(page, **options) -> list[str]:
    """Its serious violations: the rule, the element, and what is wrong with it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"resultTypes": ["violations"], **options}).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]} {node['any'][:1] and node['any'][0]['message']}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]
