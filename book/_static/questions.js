// Questions that react. Answers are kept in this browser's localStorage, the same for all pages of the book, or, where
// a browser has none for a page, until the page is left. Nothing is sent anywhere.
(() => {
  const KEY = "batch-normalization-tested: answers"
  let answers = {}
  let kept = true

  const read = () => {
    try {
      answers = JSON.parse(localStorage.getItem(KEY)) ?? {}
    } catch {
      kept = false
    }
  }
  const keep = () => {
    try {
      localStorage.setItem(KEY, JSON.stringify(answers))
    } catch {
      kept = false
    }
  }
  const say = (place, html, kind = "") => {
    place.innerHTML = html
    place.dataset.kind = kind
  }
  const ofChapter = (chapter, kind) =>
    Object.entries(answers).filter(([id, one]) => id.startsWith(`${chapter}-`) && one.kind === kind).map(([, one]) => one)
  const count = (list, what) => list.filter((one) => one[what]).length
  const labelOf = (radio) => radio.nextElementSibling.textContent
  const choice = (field) => field.querySelector("input:checked")
  const idOf = (field) => field.id.replace("question-", "")

  function answer(field) {
    const radio = choice(field)
    if (!radio) return say(field.querySelector(".bn-said"), "Choose an answer first.")
    const id = idOf(field)
    const right = radio.hasAttribute("data-right")
    read()
    if (field.dataset.kind === "prediction") answers[id] ??= { kind: "prediction", said: labelOf(radio), right }
    else answers[id] = { kind: "question", said: labelOf(radio), right, first: answers[id]?.first ?? right }
    keep()
    show()
  }

  function showField(field) {
    const one = answers[idOf(field)]
    const prediction = field.dataset.kind === "prediction"
    const said = field.querySelector(".bn-said")
    const radios = [...field.querySelectorAll("input")]
    const chosen = one && radios.find((radio) => labelOf(radio) === one.said)
    if (chosen) chosen.checked = true
    for (const radio of radios) radio.disabled = prediction && Boolean(chosen)
    field.querySelector("button").hidden = prediction && Boolean(chosen)
    if (!chosen) return say(said, "")
    if (prediction) return say(said, "Recorded. The end of the chapter will tell you whether it came true.")
    const why = chosen.closest("label").nextElementSibling
    say(said, why.innerHTML, chosen.hasAttribute("data-right") ? "right" : "wrong")
  }

  function showPredicted(item) {
    const one = answers[item.dataset.of]
    const said = item.querySelector(".bn-said")
    if (!one) return say(said, "You did not record a prediction.")
    say(said, "", one.right ? "right" : "wrong")
    said.textContent = `You predicted “${one.said}”: ${one.right ? "right" : "not right"}.`
  }

  function showScore(line) {
    const questions = ofChapter(line.dataset.chapter, "question")
    const predictions = ofChapter(line.dataset.chapter, "prediction")
    const all = document.querySelectorAll('.bn-asked[data-kind="question"]').length
    line.textContent =
      `${questions.length} of ${all} answered, ${count(questions, "first")} right at once. ` +
      `Predictions: ${predictions.length} made, ${count(predictions, "right")} right.` +
      (kept ? "" : " This browser keeps nothing for this page: your answers last until you leave it.")
  }

  function showRow(row) {
    const questions = ofChapter(row.dataset.chapter, "question")
    const predictions = ofChapter(row.dataset.chapter, "prediction")
    const numbers = [
      questions.length, count(questions, "first"), predictions.length, count(predictions, "right"),
    ]
    row.querySelectorAll("span").forEach((place, index) => (place.textContent = numbers[index]))
  }

  function show() {
    document.querySelectorAll(".bn-asked").forEach(showField)
    document.querySelectorAll(".bn-predicted li").forEach(showPredicted)
    document.querySelectorAll(".bn-score").forEach(showScore)
    document.querySelectorAll("tr[data-chapter]").forEach(showRow)
  }

  function exportAnswers() {
    const link = document.createElement("a")
    link.href = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1)], { type: "application/json" }))
    link.download = "batch-normalization-answers.json"
    link.click()
    URL.revokeObjectURL(link.href)
  }

  const isAnswer = (one) => one && ["question", "prediction"].includes(one.kind) && typeof one.said === "string"

  async function importAnswers(file, said) {
    try {
      const found = Object.entries(JSON.parse(await file.text())).filter(([, one]) => isAnswer(one))
      read()
      answers = { ...answers, ...Object.fromEntries(found) }
      keep()
      show()
      say(said, `Answers read: ${found.length}.`)
    } catch {
      say(said, "This file has no answers.")
    }
  }

  function start() {
    read()
    for (const field of document.querySelectorAll(".bn-asked")) {
      field.querySelector("button").addEventListener("click", () => answer(field))
    }
    const said = document.querySelector(".bn-buttons + .bn-said")
    document.querySelector('[data-do="export"]')?.addEventListener("click", exportAnswers)
    document.querySelector('[data-do="erase"]')?.addEventListener("click", () => {
      if (!confirm("Erase all answers and predictions from this browser?")) return
      answers = {}
      keep()
      show()
      say(said, "All answers have been erased.")
    })
    document.querySelector(".bn-file input")?.addEventListener("change", (event) => {
      importAnswers(event.target.files[0], said)
      event.target.value = ""
    })
    if (said && !kept) say(said, "This browser keeps nothing for this page.")
    show()
    window.addEventListener("storage", () => {
      read()
      show()
    })
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start)
  else start()
})()
