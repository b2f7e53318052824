// On paper: light colours, and answers at the end instead of behind a click. Afterwards the page is as it was.
(() => {
  const ANSWER = /^(answer|hint|solution)/i
  const undo = []

  function element(name, text, parent) {
    const made = document.createElement(name)
    made.textContent = text
    parent.append(made)
    return made
  }

  // What is behind a click becomes a part of the last section, and its place says which.
  function move(details, number, section) {
    const summary = details.querySelector("summary").textContent.trim()
    const part = element("div", "", section)
    element("p", `${number}. ${summary}`, part).style.fontWeight = 600
    for (const child of details.childNodes) if (child.nodeName !== "SUMMARY") part.append(child.cloneNode(true))
    for (const one of part.querySelectorAll("[id]")) one.removeAttribute("id")
    const place = document.createElement("p")
    place.textContent = `[${summary}: see ${number} at the end]`
    details.after(place)
    details.classList.add("bn-moved")
    undo.push(() => (place.remove(), details.classList.remove("bn-moved")))
  }

  function rightAnswers(article, section) {
    for (const field of article.querySelectorAll('.bn-asked[data-kind="question"]')) {
      const label = field.querySelector("[data-right]")?.closest("label")
      if (!label) continue
      const part = element("p", "", section)
      element("strong", `${field.querySelector("legend").textContent} `, part)
      element("span", `${label.textContent.trim()}. ${label.nextElementSibling.textContent.replace(/^Right\. /, "")}`, part)
    }
  }

  function prepare() {
    if (undo.length) return
    const root = document.documentElement
    const { theme } = root.dataset
    root.dataset.theme = "light"
    undo.push(() => (root.dataset.theme = theme))
    let number = 0
    for (const article of document.querySelectorAll(".bd-article")) {
      const section = document.createElement("section")
      section.className = "bn-answers-printed"
      element("h2", "Answers", section)
      for (const details of article.querySelectorAll("details:not(.hide)")) {
        const summary = details.querySelector("summary")
        if (summary && ANSWER.test(summary.textContent.trim())) move(details, ++number, section)
        else if (!details.open) {
          details.open = true
          undo.push(() => (details.open = false))
        }
      }
      rightAnswers(article, section)
      if (section.children.length > 1) {
        article.querySelector("section").append(section)
        undo.push(() => section.remove())
      }
    }
  }

  function restore() {
    while (undo.length) undo.pop()()
  }

  const print = matchMedia("print")
  print.addEventListener("change", () => (print.matches ? prepare() : restore()))
  addEventListener("beforeprint", prepare)
  addEventListener("afterprint", restore)
})()
