// What the page is made of: elements, tables, and the controls: a row for each setting, with one for A and one for B.

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else if (name === "text") made.textContent = value;
    else if (name === "className") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const labelled = (text, control) => element("label", {}, element("span", { text: `${text} ` }), control);

function writeTable(place, { heads, rows }, caption) {
  place.tabIndex = 0; // wide tables scroll, by keyboard too
  place.replaceChildren(
    element(
      "table",
      {},
      element("caption", { text: caption }),
      element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { text, scope: "col" })))),
      element(
        "tbody",
        {},
        ...rows.map((cells) =>
          element(
            "tr",
            {},
            ...cells.map((text, i) =>
              element(i ? "td" : "th", i ? { text: String(text) } : { text: String(text), scope: "row" }),
            ),
          ),
        ),
      ),
    ),
  );
}

const shown = (setting, value) =>
  setting.names?.[setting.choices.indexOf(value)] ?? (typeof value === "number" ? short(value) : value);

// A slider over the choices of a setting if they are many numbers, else a menu. `change(value)` is called on every move.
function makeControl(setting, label, change) {
  const { choices } = setting;
  if (typeof choices[0] !== "number") {
    const menu = element(
      "select",
      { "aria-label": label, autocomplete: "off" },
      ...choices.map((choice) => element("option", { text: shown(setting, choice) })),
    );
    menu.addEventListener("change", () => change(choices[menu.selectedIndex]));
    return {
      node: menu,
      set: (value) => {
        menu.selectedIndex = choices.indexOf(value);
      },
    };
  }
  const slider = element("input", {
    type: "range",
    min: "0",
    max: String(choices.length - 1),
    step: "1",
    "aria-label": label,
    autocomplete: "off",
  });
  const output = element("span", { className: "bn-value", "aria-hidden": "true" });
  const show = () => {
    output.textContent = shown(setting, choices[slider.value]);
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  slider.addEventListener("input", () => {
    show();
    change(choices[slider.value]);
  });
  return {
    node: element("span", { className: "bn-slider" }, slider, output),
    set: (value) => {
      slider.value = choices.indexOf(value);
      show();
    },
  };
}

// One row of controls; `changed(side, value)` tells what the reader did. Where a setting has no effect, the row says so.
function makeRow(name, setting, changed) {
  const sides = setting.of === "both" ? ["both"] : ["a", "b"];
  const label = (side) => (side === "both" ? setting.label : `${side.toUpperCase()}: ${setting.label}`);
  const controls = sides.map((side) => [side, makeControl(setting, label(side), (value) => changed(side, value))]);
  const cells = controls.map(([side, { node }]) =>
    element(
      "span",
      { className: `bn-cell bn-${side}` },
      ...(side === "both" ? [] : [element("b", { text: side.toUpperCase() })]),
      node,
      element("span", { className: "bn-idle", text: "no effect" }),
    ),
  );
  const kind = typeof setting.choices[0] === "number" ? "number" : "menu";
  const row = element(
    "div",
    { className: `bn-row bn-of-${setting.of} bn-${kind}` },
    element("span", { className: "bn-label", text: setting.label }),
    ...cells,
  );
  const set = (states, state) =>
    controls.forEach(([side, control]) => {
      control.set(state[side][name]);
      control.node.hidden = !states.hasEffect(state, side, name);
      control.node.nextSibling.hidden = !control.node.hidden;
    });
  return { row, set };
}
