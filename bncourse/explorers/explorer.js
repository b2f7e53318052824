// Initialize each explorer once.
for (const root of document.querySelectorAll(".bn-explorer[role=group]:not([data-live])")) {
  root.dataset.live = "";
  const controls = [...root.querySelectorAll("input, select")];
  const reading = root.querySelector(".bn-reading");
  let picture = root.querySelector("img");
  const first = [picture, reading.textContent];
  const frames = JSON.parse(root.querySelector("script").textContent).map((frame) => {
    if (!frame) return first;
    const other = picture.cloneNode(); // its decoding="sync": it is painted with the text, or not at all
    other.src = frame[0];
    return [other, frame[1]];
  });
  const count = (control) => (control.options ? control.options.length : Number(control.max) + 1);
  const chosen = (control) => (control.options ? control.selectedIndex : Number(control.value));
  const frame = (moved, position) =>
    frames[controls.reduce((index, each) => index * count(each) + (each === moved ? position : chosen(each)), 0)];

  function show() {
    for (const control of controls.filter((each) => each.type === "range")) {
      const value = JSON.parse(control.dataset.values)[control.value];
      control.setAttribute("aria-valuetext", value);
      control.previousElementSibling.textContent = value;
    }
    const [next, text] = frame();
    picture.replaceWith(next);
    picture = next;
    reading.textContent = text;
  }

  // Decodes what a control can show when the reader reaches for it, so that moving it finds the pictures ready.
  function prepare({ target }) {
    if (!controls.includes(target)) return;
    for (let i = 0; i < count(target); i++) frame(target, i)[0].decode().catch(() => {});
  }

  root.querySelector(".bn-controls").hidden = false;
  root.querySelector(".bn-fallback").hidden = true;
  root.addEventListener("input", show);
  for (const reach of ["focusin", "pointerover"]) root.addEventListener(reach, prepare);
  show();
}
