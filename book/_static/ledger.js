// The ledger shows the statements of one verdict or one chapter, and opens the one that the address names.
addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".bn-filter")
  if (!form) return
  const statements = [...document.querySelectorAll(".bn-statement")]
  const [verdict, chapter] = form.querySelectorAll("select")
  const shown = () => statements.filter((one) => !one.hidden)

  function show() {
    for (const one of statements) {
      one.hidden = Boolean((verdict.value && one.dataset.verdict !== verdict.value) || (chapter.value && one.dataset.chapter !== chapter.value))
    }
    for (const one of document.querySelectorAll(".bn-chapter")) one.hidden = !one.querySelector(".bn-statement:not([hidden])")
    form.querySelector("[role=status]").textContent = `${shown().length} of ${statements.length} statements are shown.`
  }

  function keep() {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value)).toString()
    history.replaceState(null, "", query ? `?${query}` : location.pathname)
    show()
  }

  function open() {
    const named = document.getElementById(location.hash.slice(1))
    if (!named?.matches(".bn-statement")) return
    for (const one of [named, named.closest(".bn-chapter")]) one.hidden = false
    named.open = true
    named.scrollIntoView()
  }

  const query = new URLSearchParams(location.search)
  for (const menu of [verdict, chapter]) {
    const wanted = query.get(menu.name) ?? ""
    if ([...menu.options].some((one) => one.value === wanted)) menu.value = wanted
  }
  form.hidden = false
  form.addEventListener("change", keep)
  form.querySelector("button").addEventListener("click", () => shown().forEach((one) => (one.open = true)))
  addEventListener("hashchange", open)
  addEventListener("load", open)
  show()
})
