// The lab on the page: what the reader sees and does. The engine trains elsewhere and sends reports.

class Lab {
  constructor(root, data, source) {
    Object.assign(this, {
      root,
      data,
      small: data.small,
      states: new State(data),
      onPage: false,
      running: false,
      guess: null,
    });
    this.digits = unpackDigits(data.digits);
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.build();
    this.send = startEngine(
      source,
      (report) => this.receive(report),
      () => {
        this.onPage = true;
        if (this.state) this.reset("");
      },
    );
    this.send({ load: data.digits });
    const asked = data.address ? this.states.fromAddress(location.hash) : null;
    this.open(asked?.state ?? this.states.ofPreset(data.preset), asked?.complaints);
    if (asked) window.addEventListener("load", () => requestAnimationFrame(() => root.scrollIntoView()));
    if (data.address) this.followAddress();
    document.addEventListener(
      "visibilitychange",
      () => document.hidden && this.running && this.pause("Paused, because the page was in the background."),
    );
    new ResizeObserver(() => this.redraw()).observe(root);
    new MutationObserver(() => this.redraw()).observe(document.documentElement, {
      attributes: true,
      attributeFilter: ["data-theme"],
    });
  }

  get preset() {
    return this.data.presets[this.state.id];
  }

  build() {
    const button = (text, act, className = "") => {
      const made = element("button", { type: "button", text, className });
      made.addEventListener("click", act);
      return made;
    };
    const canvas = (label) => element("canvas", { role: "img", "aria-label": label });
    const box = (...children) => element("div", { className: "bn-canvas" }, ...children);
    const heading = this.data.address ? "h2" : "p";
    const parts = (this.parts = {
      title: element(heading, { className: "bn-title" }),
      question: element("div", { className: "bn-question" }),
      changed: element("p", { className: "bn-changed", hidden: true }),
      controls: element("div", { className: "bn-controls" }),
      more: element("div", { className: "bn-controls" }),
      train: button("Train", () => this.toggle(), "bn-train"),
      progress: element("span", { className: "bn-progress" }),
      status: element("p", { className: "bn-status", role: "status" }),
      notes: element("p", { className: "bn-notes", hidden: true }),
      result: element("div", { className: "bn-result", hidden: true }),
      accuracy: canvas("Test accuracy of A and B against the step"),
      loss: canvas("Training loss of A and B against the step"),
      view: element(
        "select",
        { autocomplete: "off" },
        ...Object.values(VIEWS).map(({ label }) => element("option", { text: label })),
      ),
      layer: element("select", { autocomplete: "off" }),
      says: element("p", { className: "bn-says" }),
      inside: canvas("The look inside"),
      insideTable: element("div", { className: "bn-table" }),
      table: element("div", { className: "bn-table" }),
      legend: element("p", { className: "bn-legend" }),
    });
    parts.undo = button("Back to the preset", () => {
      this.open(this.states.ofPreset(this.state.id));
      parts.train.focus();
    });
    parts.speed = element(
      "select",
      { autocomplete: "off" },
      ...Object.keys(SPEEDS).map((name) => element("option", { text: name })),
    );
    parts.speed.addEventListener("change", () => this.running && this.send({ run: this.speed }));
    parts.presets = element("select", { autocomplete: "off" }, ...this.presetOptions());
    parts.presets.addEventListener("change", () => this.open(this.states.ofPreset(parts.presets.value)));
    parts.view.addEventListener("change", () => this.redraw());
    parts.layer.addEventListener("change", () => this.redraw());
    this.insideShown = element(
      "details",
      { className: "bn-inside" },
      element("summary", { text: "Look inside the networks" }),
      element(
        "div",
        { className: "bn-choose" },
        labelled("show", parts.view),
        (parts.layerLabel = labelled("of layer", parts.layer)),
      ),
      parts.says,
      box(parts.inside),
      parts.insideTable,
    );
    this.numbersShown = element("details", {}, element("summary", { text: "The curves as numbers" }), parts.table);
    for (const shown of [this.insideShown, this.numbersShown]) shown.addEventListener("toggle", () => this.redraw());
    this.rows = Object.entries(this.data.settings).map(([name, setting]) => ({
      name,
      setting,
      ...makeRow(name, setting, (side, value) => this.change(side, name, value)),
    }));
    const buttons = element(
      "div",
      { className: "bn-buttons" },
      parts.train,
      ...(this.small
        ? []
        : [
            button("One step", () => this.step()),
            button("Start over", () => this.reset("Back at step 0.")),
            labelled("speed", parts.speed),
          ]),
      parts.progress,
    );
    const charts = element(
      "div",
      { className: "bn-charts" },
      box(parts.accuracy),
      ...(this.small ? [] : [box(parts.loss)]),
    );
    if (this.small) {
      parts.open = element("a", { text: "Change something: open it in the lab" });
      this.root.append(
        parts.title,
        parts.question,
        buttons,
        parts.notes,
        charts,
        parts.legend,
        parts.status,
        parts.result,
        element("p", {}, parts.open),
      );
      return;
    }
    const words = Object.entries(this.data.words).flatMap(([word, text]) => [
      element("dt", { text: word }),
      element("dd", { text }),
    ]);
    const wordsShown = element(
      "details",
      {},
      element("summary", { text: "What the words mean" }),
      element("dl", {}, ...words),
    );
    this.moreShown = element("details", {}, element("summary", { text: "More controls" }), parts.more);
    this.root.append(
      element("div", { className: "bn-choose" }, labelled("preset", parts.presets)),
      parts.title,
      parts.question,
      parts.changed,
      parts.controls,
      this.moreShown,
      buttons,
      parts.notes,
      parts.status,
      charts,
      parts.legend,
      parts.result,
      this.insideShown,
      this.numbersShown,
      wordsShown,
    );
  }

  presetOptions() {
    const groups = new Map();
    for (const [id, { title, chapter }] of Object.entries(this.data.presets)) {
      const label = `Chapter ${chapter}: ${this.data.themes[chapter]}`;
      if (!groups.has(chapter)) groups.set(chapter, element("optgroup", { label }));
      groups.get(chapter).append(element("option", { text: title, value: id }));
    }
    return groups.values();
  }

  // Shows a state: a preset, or one with changes.
  open(state, complaints = []) {
    const another = this.state?.id !== state.id;
    this.state = state;
    const { parts, preset } = this;
    if (another) {
      parts.title.textContent = preset.title;
      parts.presets.value = state.id;
      parts.view.selectedIndex = Object.keys(VIEWS).indexOf(preset.view);
      parts.controls.replaceChildren();
      parts.more.replaceChildren();
      for (const { name, setting, row } of this.rows)
        (preset.show.includes(name) || (setting.main && preset.show.length < 2) ? parts.controls : parts.more).append(
          row,
        );
    }
    this.follow();
    complaints.slice(0, 3).forEach((complaint) => this.note(complaint));
  }

  // The question, and a guess to choose.
  ask({ question, answers }) {
    this.guess = null;
    const choices = answers.map(({ text }, i) => {
      const radio = element("input", { type: "radio", name: `guess-${this.data.name}`, autocomplete: "off" });
      radio.addEventListener("change", () => {
        this.guess = i;
        this.nameTrain();
        this.say("Your guess is kept. Now train.");
      });
      return element("label", {}, radio, ` ${text}`);
    });
    this.parts.question.replaceChildren(
      element("fieldset", {}, element("legend", {}, element("b", { text: "Guess first. " }), question), ...choices),
    );
  }

  // Links to presets lead to the lab, not to the preset's row in a list; the address may also be changed by hand.
  followAddress() {
    const show = () => requestAnimationFrame(() => this.root.scrollIntoView());
    window.addEventListener("hashchange", () => {
      const asked = this.states.fromAddress(location.hash);
      if (!asked || location.hash === this.states.toAddress(this.state)) return;
      this.open(asked.state, asked.complaints);
      show();
    });
    document.addEventListener("click", ({ target }) => {
      if (target.closest?.('a[href^="#lab-"]')?.hash === location.hash) show();
    });
  }

  change(side, name, value) {
    this.state[side][name] = value;
    this.follow();
  }

  // Shows the state on the page. A guess was about the state before, unless only the seeds have changed.
  follow() {
    const { parts, state, states } = this;
    for (const row of this.rows) row.set(states, state);
    this.changed = states.inWords(state);
    if (this.asked !== state.id + this.changed) this.ask(this.preset);
    this.asked = state.id + this.changed;
    parts.changed.hidden = !this.changed;
    parts.changed.replaceChildren(element("b", { text: "You have changed: " }), `${this.changed}. `, parts.undo);
    this.reset("");
  }

  reset(text) {
    const { parts, state } = this;
    this.running = this.started = false;
    parts.notes.hidden = true;
    this.send({ pause: true });
    this.run = (this.run ?? 0) + 1;
    this.at = 0;
    this.nets = ["a", "b"].map((side) => ({
      settings: state[side],
      look: null,
      seeds: Array.from({ length: state.both.seeds }, () => ({ points: [], stopped: null })),
    }));
    parts.result.hidden = true;
    this.refused = tooLarge(state.a, "A", this.onPage) ?? tooLarge(state.b, "B", this.onPage);
    parts.train.disabled = Boolean(this.refused);
    this.nameTrain();
    parts.legend.replaceChildren(...this.legend());
    this.say(this.refused ?? text);
    if (
      this.data.address &&
      location.hash !== this.states.toAddress(state) &&
      (location.hash.startsWith("#lab-") || this.states.changes(state).length || state.id !== this.data.preset)
    ) {
      history.replaceState(null, "", this.states.toAddress(state));
    }
    if (parts.open) parts.open.href = `${this.data.lab}${this.states.toAddress(state)}`;
    if (!this.small && !this.refused) this.start(); // the look at step 0
    this.redraw();
  }

  nameTrain() {
    const unguessed = this.guess === null && !this.changed && !this.small;
    const begun = this.running || this.at > 0;
    if (!begun) this.parts.train.textContent = this.small ? "Train both" : unguessed ? "Train without a guess" : "Train";
  }

  // What A and B are, and what they have in common.
  legend() {
    const [a, b] = ["a", "b"].map((side) => this.traits(side));
    const both = a.filter((trait) => b.includes(trait));
    const of = (side, traits) => [
      element("span", { className: `bn-key bn-${side}`, "aria-hidden": "true" }),
      element("b", { text: side.toUpperCase() }),
      `: ${traits.filter((trait) => !both.includes(trait)).join(", ") || "the same"}. `,
    ];
    const { seeds } = this.state.both;
    return [
      ...of("a", a),
      ...of("b", b),
      both.length ? `Both: ${both.join(", ")}. ` : "",
      this.nets.some(remembers)
        ? "Solid: evaluation mode, with running statistics; dashed: with the statistics of each test batch. "
        : "",
      seeds > 1 ? `Bands: the 95% interval of the mean of ${seeds} seeds.` : "",
    ];
  }

  // A network in words: the main settings, and others where they are not as usual.
  traits(side) {
    const { norm, depth, optimizer, rate, batch, ...others } = this.state[side];
    const { settings } = this.data;
    const unusual = Object.keys(others).filter(
      (name) =>
        (others[name] !== settings[name].start || this.state.a[name] !== this.state.b[name]) &&
        this.states.hasEffect(this.state, side, name),
    );
    return [
      norm === "none" ? "no norm" : shown(settings.norm, norm),
      `${depth} hidden layer${depth === 1 ? "" : "s"}`,
      `${optimizer} at rate ${shown(settings.rate, rate)}`,
      `batches of ${batch}`,
      ...unusual.map((name) => `${settings[name].label}: ${shown(settings[name], others[name])}`),
    ];
  }

  get speed() {
    return SPEEDS[this.parts.speed.value];
  }

  toggle() {
    if (this.running) this.pause("Paused.");
    else this.train();
  }

  start() {
    if (!this.started)
      this.send({ start: { shared: this.state.both, a: this.state.a, b: this.state.b, run: this.run } });
    this.started = true;
  }

  begin() {
    if (this.at >= this.state.both.steps) this.reset(""); // it has come to its end: once more
    this.start();
  }

  train() {
    this.begin();
    this.running = true;
    this.parts.train.textContent = "Pause";
    this.say("Training.");
    this.send({ run: this.speed });
  }

  pause(text) {
    this.running = false;
    this.parts.train.textContent = "Go on";
    this.send({ pause: true });
    this.say(`${text} ${this.summary()}`);
    this.redraw();
  }

  step() {
    if (this.refused) return this.say(this.refused);
    if (this.running) this.pause("Paused.");
    this.begin();
    this.parts.train.textContent = "Go on";
    this.send({ step: true });
  }

  receive({ run, step, done, networks }) {
    if (run !== this.run) return; // of a run that has been left
    this.at = step;
    networks.forEach(({ seeds, look }, i) => {
      const net = this.nets[i];
      if (look) net.look = look;
      seeds.forEach(({ points, stopped, values }, k) => {
        net.seeds[k].points.push(...points);
        net.seeds[k].values = values;
        if (stopped && !net.seeds[k].stopped) {
          net.seeds[k].stopped = stopped;
          this.note(
            `${letter(i)}${net.seeds.length > 1 ? `, seed ${this.state.both.seed + k},` : ""} stopped ${stopped}.`,
          );
        }
      });
    });
    if (done) this.finish();
    this.redraw();
  }

  finish() {
    this.running = false;
    this.at = this.state.both.steps;
    this.parts.train.textContent = this.small ? "Train both again" : "Train again";
    this.say(`Done. ${this.summary()}`);
    this.showResult();
  }

  summary() {
    return this.nets
      .map((net, i) => {
        if (stopped(net)) return `${letter(i)} stopped ${net.seeds[0].stopped.split(":")[0]}.`;
        const final = (quantity) => curve(net, quantity).y.at(-1);
        const modes = remembers(net) ? ` (${percent(final("batchAccuracy"))} with batch statistics)` : "";
        return Number.isFinite(final("accuracy"))
          ? `${letter(i)}: test accuracy ${percent(final("accuracy"))}${modes}.`
          : "";
      })
      .join(" ");
  }

  showResult() {
    const { parts, changed, guess, preset, data } = this;
    const { statements } = data;
    const paragraphs = resultOf(this.nets, { preset, changed, guess, ten: data.measured[this.state.id] });
    if (!this.small) paragraphs.push(["Look and try.", preset.comment]);
    for (const { id, text } of statements[this.state.id] ?? [])
      paragraphs.push([`Statement ${id}, which the book tests.`, `“${text}”`, data.ledger && `${data.ledger}#ledger-${id}`]);
    parts.result.replaceChildren(
      ...paragraphs.map(([lead, text, address]) =>
        element(
          "p",
          {},
          element("b", { text: `${lead} ` }),
          text,
          ...(address ? [" ", element("a", { href: address, text: "Its verdict" })] : []),
        ),
      ),
    );
    parts.result.hidden = false;
  }

  say(text) {
    if (this.parts.status.textContent !== text) this.parts.status.textContent = text;
  }

  note(text) {
    const { notes } = this.parts;
    notes.textContent = notes.hidden ? text : `${notes.textContent} ${text}`;
    notes.hidden = false;
  }

  // Draws at the next frame; with reduced motion once a second while it trains.
  redraw() {
    if (this.waiting) return;
    const draw = () => {
      this.waiting = null;
      this.draw();
    };
    this.waiting = this.still.matches && this.running ? setTimeout(draw, 1000) : requestAnimationFrame(draw);
  }

  draw() {
    const { parts, nets, state } = this;
    const { steps } = state.both;
    parts.progress.textContent = `step ${Math.min(this.at, steps)} of ${steps}`;
    drawAccuracy(parts.accuracy, nets, steps);
    if (this.small) return this.describe();
    drawLoss(parts.loss, nets, steps);
    const view = Object.values(VIEWS)[parts.view.selectedIndex];
    const start = looked(nets) && nets[0].look.step === 0;
    parts.says.textContent = start ? `${view.says} This is before the first step.` : view.says;
    parts.layerLabel.hidden = !view.layer;
    const count = Math.max(1, ...nets.map(({ look }) => look?.norms.length ?? 1));
    if (parts.layer.options.length !== count)
      parts.layer.replaceChildren(
        ...Array.from({ length: count }, (_, i) => element("option", { text: String(i + 1) })),
      );
    if (this.insideShown.open && looked(nets)) {
      const context = { steps, digits: this.digits, layer: parts.layer.selectedIndex };
      view.draw(parts.inside, nets, context);
      parts.inside.setAttribute("aria-label", `${view.label}. The numbers are in the table below.`);
      if (!this.running) writeTable(parts.insideTable, view.table(nets, context), `${view.label}, at step ${nets[0].look.step}`);
    } else if (this.insideShown.open) {
      begin(parts.inside, 1);
      parts.insideTable.replaceChildren();
    }
    if (this.numbersShown.open && !this.running)
      writeTable(parts.table, runTable(nets), "Training loss (nats) and test accuracy; “batch”: with batch statistics");
    this.describe();
  }

  describe() {
    if (this.running) return;
    const when = this.at ? `At step ${this.at}.` : "Before the first step.";
    this.parts.accuracy.setAttribute("aria-label", `Test accuracy against the step. ${when} ${this.summary()}`);
    const losses = this.nets.map((net, i) => `${letter(i)}: ${number(curve(net, "loss").y.at(-1))} nats`).join(", ");
    this.parts.loss.setAttribute("aria-label", `Training loss against the step. ${when} ${this.at ? losses : ""}`);
  }
}

const SPEEDS = {
  "as fast as it can": Infinity,
  "60 steps a second": 60,
  "10 steps a second": 10,
  "2 steps a second": 2,
};

for (const root of document.querySelectorAll(".bn-lab:not([data-live])")) {
  const read = (name) => root.querySelector(`script.bn-lab-${name}`)?.textContent;
  if (!read("data")) continue; // its script comes later
  root.dataset.live = "";
  root.querySelector(".bn-fallback")?.remove();
  new Lab(root, JSON.parse(read("data")), { engine: read("engine"), worker: read("worker") });
}
