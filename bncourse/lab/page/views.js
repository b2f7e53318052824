// What the lab shows of a run: each view draws on a canvas and says the same as a table {heads, rows}.
// `nets` are the two networks: {name, settings, seeds: [{points, stopped}], look}.

const T95 = { 2: 12.706, 3: 4.303, 5: 2.776, 10: 2.262 }; // Student's t, for the 95% interval of a mean
const letter = (net) => "AB"[net];
const percent = (value) => (Number.isFinite(value) ? `${value.toFixed(1)}%` : "–");
const number = (value) => (Number.isFinite(value) ? short(value) : "–");

// The mean over seeds of one quantity at every measured step, with the 95% interval of the mean.
function curve({ seeds }, quantity) {
  const steps = [...new Set(seeds.flatMap(({ points }) => points.map((point) => point.step)))].sort((a, b) => a - b);
  const line = { x: [], y: [], low: seeds.length > 1 ? [] : null, high: seeds.length > 1 ? [] : null };
  for (const step of steps) {
    const values = seeds
      .map(({ points }) => points.find((point) => point.step === step)?.[quantity])
      .filter(Number.isFinite);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    line.x.push(step);
    line.y.push(mean);
    if (!line.low) continue;
    const std = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
    const reach = ((T95[values.length] ?? 2.3) * std) / Math.sqrt(values.length);
    line.low.push(mean - reach);
    line.high.push(mean + reach);
  }
  return line;
}

const remembers = ({ settings }) => settings.norm === "batch" || settings.norm === "ghost";

function curves(nets, quantity, ofBatch = null) {
  return nets.flatMap((net, i) => [
    { ...curve(net, quantity), colour: i, name: `${letter(i)}${stopped(net) ? " (stopped)" : ""}` },
    ...(ofBatch && remembers(net) ? [{ ...curve(net, ofBatch), low: null, colour: i, dash: true }] : []),
  ]);
}

function drawAccuracy(canvas, nets, steps) {
  drawLines(canvas, {
    lines: curves(nets, "accuracy", "batchAccuracy"),
    range: [0, 100],
    x: [0, steps],
    xLabel: "step",
    yLabel: "test accuracy (%)",
  });
}

function drawLoss(canvas, nets, steps) {
  const lines = curves(nets, "loss");
  const highest = Math.max(3, ...lines.flatMap(({ y }) => y.filter(Number.isFinite)));
  drawLines(canvas, {
    lines,
    range: [0, Math.min(highest, 6)],
    x: [0, steps],
    xLabel: "step",
    yLabel: highest > 6 ? "training loss (nats; more than 6 is off the plot)" : "training loss (nats)",
  });
}

// From 0 to `last` in at most a dozen steps, equal ones if that can be; the last is among them.
function evenly(last) {
  const least = Math.max(1, Math.ceil(last / 12));
  const step = [...Array(least + 1).keys()].map((more) => least + more).find((step) => last % step === 0) ?? least;
  const found = Array.from({ length: Math.floor(last / step) + 1 }, (_, k) => k * step);
  return found.at(-1) === last ? found : [...found, last];
}

// The numbers of the layers that are shown: 1, 2, ..., 12, or 1, 5, 10, ..., 60.
const chosenLayers = (count) => [...new Set(evenly(count).map((number) => Math.max(1, number)))];

const looked = (nets) => nets.every(({ look }) => look);
const layersOf = ({ look }) => look.layers.map((layer, i) => ({ ...layer, number: i + 1 }));
const byLayer = (nets, quantity) =>
  nets.map((net, i) => ({
    x: layersOf(net).map((layer) => layer.number),
    y: layersOf(net).map((layer) => layer[quantity]),
    colour: i,
    name: letter(i),
  }));
const deepest = (nets) => Math.max(...nets.map(({ look }) => look.layers.length));
const layerAxis = (nets) => ({
  x: [1, Math.max(2, deepest(nets))],
  xTicks: chosenLayers(deepest(nets)),
  xLabel: "hidden layer",
});

function layerTable(nets, columns) {
  const heads = ["layer", ...nets.flatMap((_, i) => columns.map(([title]) => `${letter(i)}: ${title}`))];
  const rows = chosenLayers(deepest(nets)).map((k) => [
    k,
    ...nets.flatMap(({ look }) => columns.map(([, of]) => (look.layers[k - 1] ? number(of(look.layers[k - 1])) : ""))),
  ]);
  return { heads, rows };
}

const VIEWS = {
  activations: {
    label: "activations, layer by layer",
    says: "What enters each layer's activation, for 128 training images. Values beyond ±4 are in the outermost bars.",
    draw: (canvas, nets) =>
      drawHistograms(
        canvas,
        nets.map((net) => chosenLayers(net.look.layers.length).map((k) => layersOf(net)[k - 1])),
      ),
    table: (nets) =>
      layerTable(nets, [
        ["mean", ({ mean, std }) => (Math.abs(mean) < 1e-6 * std ? 0 : mean)], // what rounding leaves
        ["std", (layer) => layer.std],
      ]),
  },
  gradients: {
    label: "gradients, layer by layer",
    says: "The length of the gradient of each layer's weights, on a logarithmic axis: far up means exploding, far down means vanishing. A gradient of exactly 0 cannot be drawn there; the table has it.",
    draw: (canvas, nets) =>
      drawLines(canvas, {
        lines: byLayer(nets, "gradient"),
        log: true,
        dots: true,
        ...layerAxis(nets),
        yLabel: "length of the weights' gradient",
      }),
    table: (nets) => layerTable(nets, [["gradient", (layer) => layer.gradient]]),
  },
  statistics: {
    label: "running against batch statistics",
    says: "One point for each unit of a layer's BatchNorm. The horizontal axis shows what 128 training images say now, the vertical axis what the layer remembers. On the diagonal the two agree, and evaluation sees what training saw.",
    layer: true,
    draw: (canvas, nets, { layer }) => {
      const panels = nets.flatMap(({ look }, colour) => {
        const norm = look.norms[Math.min(layer, look.norms.length - 1)];
        return norm
          ? [
              { title: `${letter(colour)}: means`, x: [...norm.batchMean], y: [...norm.runningMean], colour },
              {
                title: `${letter(colour)}: variances`,
                x: [...norm.batchVariance],
                y: [...norm.runningVariance],
                colour,
                log: true,
              },
            ]
          : [];
      });
      if (panels.length) drawPoints(canvas, panels, "of the batch");
      else begin(canvas, 1);
    },
    table: (nets) => ({
      heads: [
        "BatchNorm layer",
        ...nets.flatMap((_, i) => [
          `${letter(i)}: distance of the means (std)`,
          `${letter(i)}: ratio of the variances`,
        ]),
      ],
      rows: chosenLayers(Math.max(0, ...nets.map(({ look }) => look.norms.length))).map((k) => [
        k,
        ...nets.flatMap(({ look }) => {
          const norm = look.norms[k - 1];
          if (!norm) return ["–", "–"];
          const units = [...norm.batchMean.keys()];
          const average = (of) => units.reduce((sum, c) => sum + of(c), 0) / units.length;
          return [
            number(
              average(
                (c) => Math.abs(norm.runningMean[c] - norm.batchMean[c]) / Math.sqrt(norm.batchVariance[c] + 1e-12),
              ),
            ),
            number(
              Math.exp(average((c) => Math.log((norm.runningVariance[c] + 1e-12) / (norm.batchVariance[c] + 1e-12)))),
            ),
          ];
        }),
      ]),
    }),
  },
  loss: {
    label: "test loss in both modes",
    says: "The loss of the test images: solid in evaluation mode, with running statistics; dashed with the statistics of each test batch.",
    draw: (canvas, nets, { steps }) =>
      drawLines(canvas, {
        lines: curves(nets, "testLoss", "batchTestLoss"),
        log: true,
        x: [0, steps],
        xLabel: "step",
        yLabel: "test loss (nats)",
      }),
    table: (nets) =>
      pointTable(nets, [
        ["loss", "testLoss", number],
        ["loss, batch", "batchTestLoss", number],
      ]),
  },
  weights: {
    label: "length of the weights, effective rate",
    says: "A norm makes the length of the weights before it irrelevant to the output: what counts is the learning rate divided by the squared length (by the length, for Adam). A network without a norm has no such rate, and so no line.",
    draw: (canvas, nets, { steps }) =>
      drawLines(canvas, {
        lines: curves(nets, "effective"),
        log: true,
        x: [0, steps],
        xLabel: "step",
        yLabel: "effective learning rate",
      }),
    table: (nets) =>
      pointTable(nets, [
        ["length of the weights", "weights", number],
        ["effective rate", "effective", number],
      ]),
  },
  dead: {
    label: "silent units",
    says: "The share of each layer's units that output 0 for each of 128 training images.",
    draw: (canvas, nets) =>
      drawLines(canvas, {
        lines: byLayer(nets, "dead"),
        range: [0, 100],
        dots: true,
        ...layerAxis(nets),
        yLabel: "silent units (%)",
      }),
    table: (nets) => layerTable(nets, [["silent units (%)", (layer) => layer.dead]]),
  },
  digits: {
    label: "digits and predictions",
    says: "Test images with their class and each network's answer, with running statistics (r) and with those of the test batch (b). A cross marks a wrong answer.",
    draw: (canvas, nets, { digits }) =>
      drawDigits(
        canvas,
        shownDigits(nets, digits),
        nets.flatMap(({ look, settings }, colour) => [
          {
            name: remembers({ settings }) ? `${letter(colour)} r` : letter(colour),
            colour,
            predictions: look.digits.map((one) => one.running),
          },
          ...(remembers({ settings })
            ? [{ name: `${letter(colour)} b`, colour, predictions: look.digits.map((one) => one.batch) }]
            : []),
        ]),
      ),
    table: (nets, { digits }) => ({
      heads: [
        "digit",
        ...nets.flatMap((net, i) => [letter(i), ...(remembers(net) ? [`${letter(i)}, batch`] : [])]),
      ],
      rows: shownDigits(nets, digits).map(({ label }, i) => [
        label,
        ...nets.flatMap((net) => {
          const { running, batch } = net.look.digits[i];
          return [running, ...(remembers(net) ? [batch ?? "–"] : [])];
        }),
      ]),
    }),
  },
};

const shownDigits = ([{ look }], { images, labels }) =>
  look.digits.map(({ position }) => ({
    pixels: images.slice(64 * position, 64 * position + 64),
    label: labels[position],
  }));

// Some of the measured steps, the last among them, with these quantities of A and B.
function pointTable(nets, columns) {
  const steps = [...new Set(nets.flatMap((net) => curve(net, "accuracy").x))].sort((a, b) => a - b);
  const of = (net) => columns.filter(([, quantity]) => remembers(net) || !quantity.startsWith("batch"));
  const heads = ["step", ...nets.flatMap((net, i) => of(net).map(([title]) => `${letter(i)}: ${title}`))];
  const rows = (steps.length ? evenly(steps.length - 1) : []).map((k) => [
    steps[k],
    ...nets.flatMap((net) =>
      of(net).map(([, quantity, write]) => {
        const line = curve(net, quantity);
        const at = line.x.indexOf(steps[k]);
        return at < 0 ? "–" : write(line.y[at]);
      }),
    ),
  ]);
  return { heads, rows };
}

const runTable = (nets) =>
  pointTable(nets, [
    ["loss", "loss", number],
    ["test", "accuracy", percent],
    ["test, batch", "batchAccuracy", percent],
  ]);
