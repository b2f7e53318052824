// A page that was found by the search: its words are marked in the section, and the first one is in view.
(() => {
  const terms = (new URLSearchParams(location.search).get("found") ?? "").split(" ").filter(Boolean)
  if (!terms.length) return

  function mark() {
    const named = document.getElementById(decodeURIComponent(location.hash.slice(1)))
    const section = named?.matches("dt") ? named.nextElementSibling : named ?? document.querySelector(".bd-article")
    const escaped = terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/^norm$/, "normali[sz]|norm"))
    const pattern = new RegExp(`(?:${escaped.join("|")})[\\p{L}\\p{N}]*`, "giu")
    const walker = document.createTreeWalker(section, NodeFilter.SHOW_TEXT)
    const texts = []
    while (walker.nextNode()) if (!walker.currentNode.parentElement.closest("script, style, mjx-container")) texts.push(walker.currentNode)
    for (const text of texts) {
      for (const hit of [...text.data.matchAll(pattern)].reverse()) {
        const rest = text.splitText(hit.index)
        rest.splitText(hit[0].length)
        const made = document.createElement("mark")
        rest.replaceWith(made)
        made.append(rest)
      }
    }
    const first = [...section.querySelectorAll("mark")].find((one) => one.offsetParent && !one.closest("h1, h2, h3, h4, details:not([open])"))
    first?.scrollIntoView({ block: "center" })
  }

  addEventListener("load", mark)
})()
