// Keys: right, down, space and page down go on; left, up and page up go back; Home and End. The address has the number.
// What a figure shows is told by the next key after it, or by a click on it.
(() => {
  const slides = [...document.querySelectorAll("section")]
  const steps = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }
  let at = Math.min(Math.max(Number(location.hash.slice(1)) - 1 || 0, 0), slides.length - 1)
  const show = (number) => {
    at = Math.min(Math.max(number, 0), slides.length - 1)
    slides[at].scrollIntoView()
    history.replaceState(null, "", `#${at + 1}`)
    document.title = `${at + 1}/${slides.length} ${slides[at].querySelector("h1, h2").textContent}`
  }
  const tell = (caption) => caption.classList.add("told")
  document.documentElement.classList.add("guessing")
  document.addEventListener("click", (event) => {
    event.target.closest("figure")?.querySelectorAll("figcaption").forEach(tell)
  })
  slides.forEach((slide) => { slide.tabIndex = -1 })
  const watch = new IntersectionObserver((seen) => {
    const now = seen.find((one) => one.isIntersecting)
    if (now) at = slides.indexOf(now.target)
  }, { threshold: 0.6 })
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return
    if (event.key === "Home") show(0)
    else if (event.key === "End") show(slides.length - 1)
    else if (event.key in steps) {
      const untold = steps[event.key] > 0 && slides[at].querySelector("figcaption:not(.told)")
      if (untold) tell(untold)
      else show(at + steps[event.key])
    }
    else return
    event.preventDefault()
  })
  window.addEventListener("hashchange", () => show(Number(location.hash.slice(1)) - 1 || 0))
  window.addEventListener("load", () => {
    show(at)
    slides.forEach((slide) => watch.observe(slide))
  })
})()
