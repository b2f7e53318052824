// A table or a formula that does not fit says that it scrolls; without a script it scrolls all the same.
(() => {
  const BOXES = { table: ".pst-scrollable-table-container", formula: ".bd-article div.math" }
  const look = () => {
    for (const [what, boxes] of Object.entries(BOXES))
      for (const box of document.querySelectorAll(boxes)) {
        const scrolling = [box, ...box.querySelectorAll("mjx-container[display]")]
        const wide = scrolling.filter((one) => one.scrollWidth > one.clientWidth + 1)
        for (const one of wide) one.tabIndex = 0 // for the keyboard; the theme has looked before there were formulas
        box.classList.toggle("bn-scrolls", wide.length > 0)
        if (wide.length) box.dataset.says = `This ${what} scrolls sideways →`
      }
  }
  addEventListener("load", async () => {
    look()
    await window.MathJax?.startup?.promise // formulas have no width before
    look()
  })
  addEventListener("resize", look)
  addEventListener("toggle", look, true) // what stands in a closed part of the page has no width
})()
