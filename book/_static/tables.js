// A table that does not fit says that it scrolls; without a script it scrolls all the same.
(() => {
  const boxes = () => document.querySelectorAll(".pst-scrollable-table-container")
  const look = () => {
    for (const box of boxes()) {
      const wide = box.scrollWidth > box.clientWidth + 1
      box.classList.toggle("bn-scrolls", wide)
      if (wide) box.dataset.says = "This table scrolls sideways →"
    }
  }
  addEventListener("load", look)
  addEventListener("resize", look)
})()
