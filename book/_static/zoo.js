// The bug zoo: click on the line that is wrong, or choose it from the list, and see whether it is the one.
addEventListener("DOMContentLoaded", () => {
  const data = document.getElementById("bn-bugs")
  if (!data) return
  const bugs = JSON.parse(data.textContent)

  function ask(pre, wrong) {
    const lines = pre.textContent.replace(/\n$/, "").split("\n")
    const form = document.createElement("form")
    form.className = "bn-line"
    form.innerHTML = "<label>Find the line: click on it, or choose it here <select><option value=''></option></select></label><p role='status'></p>"
    const [menu, said] = [form.querySelector("select"), form.querySelector("p")]
    lines.forEach((line, number) => line.trim() && menu.add(new Option(`${number + 1}: ${line.trim().slice(0, 60)}`, number)))
    const answer = () => {
      if (menu.value === "") return
      const right = wrong.includes(Number(menu.value))
      said.textContent = right ? `Line ${Number(menu.value) + 1}: yes, here it is. Now fix it, and explain why.` : `Line ${Number(menu.value) + 1}: no, this one is right as it is.`
      said.dataset.kind = right ? "right" : "wrong"
    }
    menu.addEventListener("change", answer)
    pre.addEventListener("click", (event) => {
      const at = document.caretRangeFromPoint?.(event.clientX, event.clientY) ?? caret(event)
      if (!at || !pre.contains(at.startContainer) || !getSelection().isCollapsed) return
      const before = document.createRange()
      before.setStart(pre, 0)
      before.setEnd(at.startContainer, at.startOffset)
      const number = before.toString().split("\n").length - 1
      if (lines[number]?.trim()) {
        menu.value = number
        answer()
      }
    })
    pre.closest(".cell").after(form)
  }

  function caret(event) {
    const found = document.caretPositionFromPoint?.(event.clientX, event.clientY)
    return found && { startContainer: found.offsetNode, startOffset: found.offset }
  }

  for (const pre of document.querySelectorAll(".cell_input pre")) {
    const name = pre.textContent.match(/^(?:class|def) (\w+)/m)?.[1]
    if (bugs[name]) ask(pre, bugs[name])
  }
})
