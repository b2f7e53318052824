// The search page: sections that have all the words, the best first, each with a line around the first of them.
(() => {
  const STOP = new Set("a an and are as at be by do does for from how in is it of on or the to vs versus what when why with".split(" "))
  const plain = (text) =>
    text.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase().replace(/normali[sz](ation|e[sd]?|ing)/g, "norm").replace(/[‐-―_-]/g, " ")
  const tokens = (text) => plain(text).match(/[\p{L}\p{N}.]*[\p{L}\p{N}]/gu) ?? []
  const stem = (word) => (word.length > 4 ? word.replace(/(ies|es|s|ing|ed)$/, "") : word)
  const fits = (word, term) => word === term || (term.length > 2 && word.startsWith(term))

  const entries = window.searchIndex.map(([page, anchor, title, section, text]) => {
    const all = tokens(text)
    return { page, anchor, title, section, text, words: all, top: tokens(title), head: tokens(section) }
  })

  function score(entry, terms, weights) {
    let sum = 0
    for (const term of terms) {
      const hits = entry.words.filter((word) => fits(word, term)).length
      const top = entry.top.some((word) => fits(word, term))
      const head = entry.head.some((word) => fits(word, term))
      if (!hits && !head && !top) return 0
      sum += weights.get(term) * (hits / (hits + 3) + 2 * head + 2.5 * top)
    }
    const named = entry.head.length > 0 && entry.head.every((word) => terms.some((term) => fits(word, term)))
    return sum * (named ? 1.5 : 1) * (entry.page.startsWith("exercises/") ? 0.6 : 1) * (/^(changes|other-data|references)/.test(entry.page) ? 0.4 : 1)
  }

  function find(query) {
    const terms = [...new Set(tokens(query).filter((word) => !STOP.has(word)).map(stem))]
    if (!terms.length) return []
    const weights = new Map(terms.map((term) => {
      const having = entries.filter((entry) => entry.words.some((word) => fits(word, term))).length
      return [term, Math.log(1 + entries.length / (1 + having))]
    }))
    const found = entries.map((entry) => ({ entry, points: score(entry, terms, weights) })).filter((one) => one.points > 0)
    const pages = new Map() // a page whose sections say it together comes before one that says it once
    for (const { entry, points } of found) pages.set(entry.page, (pages.get(entry.page) ?? 0) + points)
    const most = Math.max(...pages.values())
    for (const one of found) one.points *= 1 + pages.get(one.entry.page) / most
    return found.sort((a, b) => b.points - a.points).slice(0, 30).map((one) => ({ ...one.entry, terms }))
  }

  const splitter = (terms) => new RegExp(`(${terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/^norm$/, "normali[sz]|norm")).join("|")})`, "giu")

  function context({ text, terms }) {
    const at = Math.max(0, text.search(splitter(terms)))
    const begin = at < 70 ? 0 : text.indexOf(" ", at - 70) + 1
    return `${begin ? "… " : ""}${text.slice(begin, begin + 190)}${text.length > begin + 190 ? " …" : ""}`
  }

  function marked(text, terms, place) {
    text.split(splitter(terms)).forEach((part, number) => {
      const node = number % 2 ? document.createElement("mark") : document.createElement("span")
      node.textContent = part
      place.append(node)
    })
  }

  function show(query) {
    const place = document.getElementById("search-results")
    const results = find(query)
    place.replaceChildren()
    const count = document.createElement("p")
    count.setAttribute("role", "status")
    count.textContent = !query.trim() ? "" : results.length ? `Sections found: ${results.length}${results.length === 30 ? " or more" : ""}.`
      : "No section has these words. Try fewer, or another form."
    const list = document.createElement("ol")
    list.className = "bn-results"
    for (const one of results) {
      const item = document.createElement("li")
      const link = document.createElement("a")
      link.href = `${one.page}.html?found=${encodeURIComponent(one.terms.join(" "))}#${one.anchor}`
      link.textContent = one.section === one.title ? one.title : `${one.title}: ${one.section}`
      const line = document.createElement("p")
      marked(context(one), one.terms, line)
      item.append(link, line)
      list.append(item)
    }
    place.append(count, list)
  }

  const field = document.querySelector(".bd-search-container input")
  const query = new URLSearchParams(location.search).get("q") ?? ""
  if (field) {
    field.value = query
    field.addEventListener("input", () => show(field.value))
  }
  show(query)
})()
