// The explorers of a page: a guess comes first and stays beside the result, and the address has what is shown.
(() => {
  const slug = (root) => root.getAttribute("aria-label").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "")
  const controls = (root) => [...root.querySelectorAll(".bn-controls input, .bn-controls select")]
  const values = (control) => (control.options ? [...control.options].map((one) => one.text) : JSON.parse(control.dataset.values))
  const at = (control) => (control.options ? control.selectedIndex : Number(control.value))

  // ?what-it-shows=2~0.1: each control's value, as the reader sees it
  function keep(root) {
    const query = new URLSearchParams(location.search)
    query.set(slug(root), controls(root).map((control) => values(control)[at(control)]).join("~"))
    history.replaceState(null, "", `?${query}${location.hash}`)
  }

  function restore(root) {
    const kept = new URLSearchParams(location.search).get(slug(root))?.split("~")
    if (kept?.length !== controls(root).length) return
    const places = controls(root).map((control, number) => values(control).indexOf(kept[number]))
    if (places.includes(-1)) return
    controls(root).forEach((control, number) => {
      if (control.options) control.selectedIndex = places[number]
      else control.value = places[number]
    })
    controls(root)[0].dispatchEvent(new Event("input", { bubbles: true }))
  }

  function askForAGuess(root) {
    const form = document.createElement("form")
    form.className = "bn-guess"
    form.innerHTML = '<label>Your guess <input type="text" maxlength="80" autocomplete="off"></label><button>Keep it</button>'
    const said = document.createElement("p")
    said.className = "bn-guessed"
    said.setAttribute("role", "status")
    form.addEventListener("submit", (event) => {
      event.preventDefault()
      const guess = form.querySelector("input").value.trim()
      said.textContent = guess ? `You guessed: ${guess}. It shows:` : "Write a guess first."
      if (guess) form.hidden = true
    })
    root.querySelector(".bn-question").after(form)
    root.querySelector(".bn-reading").before(said)
  }

  addEventListener("DOMContentLoaded", () => {
    for (const root of document.querySelectorAll(".bd-article .bn-explorer[role=group]")) {
      restore(root)
      askForAGuess(root)
      root.querySelector(".bn-controls").addEventListener("input", () => keep(root))
    }
  })
})()
