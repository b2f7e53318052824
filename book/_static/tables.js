// A table or a formula that does not fit says that it scrolls; without a script it scrolls all the same.
(() => {
  const BOXES = { table: ".pst-scrollable-table-container", formula: ".bd-article div.math" }
  const look = () => {
    for (const [what, boxes] of Object.entries(BOXES))
      for (const box of document.querySelectorAll(boxes)) {
        const scrolling = [box, ...box.querySelectorAll("mjx-container[display]")]
        const wide = scrolling.some((one) => one.scrollWidth > one.clientWidth + 1)
        box.classList.toggle("bn-scrolls", wide)
        if (wide) box.dataset.says = `This ${what} scrolls sideways →`
      }
  }
  addEventListener("load", async () => {
    look()
    await window.MathJax?.startup?.promise // formulas have no width before
    look()
  })
  addEventListener("resize", look)
})()
