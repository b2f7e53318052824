// A click on "download the notebook" puts the package into the notebook's first cell and saves both as one file.
(() => {
  const load = (address) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script")
      Object.assign(script, { src: address, onload: resolve, onerror: reject })
      document.head.append(script)
      script.remove()
    })

  async function save(link) {
    const folder = link.dataset.notebooks
    await Promise.all([window.bncoursePackage ?? load(`${folder}/package.js`), load(`${folder}/${link.dataset.name}.js`)])
    const text = JSON.stringify(window.bncourseNotebook, null, 1).replace("PACKAGE", window.bncoursePackage)
    const file = document.createElement("a")
    file.href = URL.createObjectURL(new Blob([text], { type: "application/x-ipynb+json" }))
    file.download = link.download
    file.click()
    setTimeout(() => URL.revokeObjectURL(file.href), 1000)
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-notebooks]")
    if (!link) return
    event.preventDefault()
    save(link).catch(() => location.assign(link.href))
  })
})()
