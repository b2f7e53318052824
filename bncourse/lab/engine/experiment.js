// Networks A and B, trained from the same seeds on the same data, and what is measured on the way.

const TIMES = 30; // how often a run is measured
const SHOWN = 12; // test images that are shown with their predictions
const PROBE = 128; // training images that the layers are looked at with
const BINS = 40,
  REACH = 4; // the histograms: from -4 to 4, what lies beyond in the outermost bins

// One network with one seed.
class Run {
  constructor(settings, shared, digits, seed) {
    this.task = makeTask(digits, shared, seed);
    this.network = new Network(settings, { seed });
    this.optimizer = new OPTIMIZERS[settings.optimizer](this.network.parameters, settings);
    this.stream = new Stream(this.task.train.labels, shared.data, seed);
    this.masks = new Random(seed, "dropout");
    this.probe = takeRows(this.task.train.x, [...Array(Math.min(PROBE, shared.images)).keys()]);
    Object.assign(this, { settings, shared, seed, history: [], losses: [], steps: 0, stopped: null });
  }

  // One optimizer step: the gradients of `accumulate` batches, averaged.
  step() {
    if (this.stopped) return;
    this.steps += 1;
    const { network, settings, task } = this;
    network.zeroGradients();
    let loss = 0;
    try {
      for (let i = 0; i < settings.accumulate; i++) {
        const positions = this.stream.next(settings.batch);
        const scores = network.forward(takeRows(task.train.x, positions), {
          statistics: "batch",
          remember: true,
          random: this.masks,
        });
        const result = crossEntropy(
          scores,
          positions.map((p) => task.train.labels[p]),
        );
        for (let j = 0; j < result.gradient.values.length; j++) result.gradient.values[j] /= settings.accumulate;
        network.backward(result.gradient);
        loss += result.loss / settings.accumulate;
      }
    } catch (error) {
      // a batch of one
      this.stopped = `at step ${this.steps}: ${error.message}`;
      return;
    }
    if (!Number.isFinite(loss)) this.stopped = `at step ${this.steps}: diverged, its loss is no longer a finite number`;
    else this.losses.push(loss);
    this.optimizer.step();
  }

  // Everything that the page draws and the presets' sentences are about.
  measure(step) {
    const running = this.evaluate("running");
    const batch = this.network.remembers ? this.evaluate("batch") : running;
    this.look = { step, ...this.lookInside() };
    const { layers } = this.look;
    const weights = Math.sqrt(
      this.network.linears.slice(0, -1).reduce((sum, { weight }) => sum + squares(weight.values), 0),
    );
    this.history.push({
      step,
      loss: mean(this.losses.splice(0)),
      accuracy: running.accuracy,
      batchAccuracy: batch.accuracy,
      testLoss: running.loss,
      batchTestLoss: batch.loss,
      disagree: 100 * mean(running.predictions.map((one, i) => (batch.predictions[i] ?? one) !== one)),
      weights,
      effective: this.effective(weights),
      firstGradient: layers[0].gradient,
      lastGradient: layers.at(-1).gradient,
      shift: this.look.shift,
      spread: layers.at(-1).std,
    });
    this.look.digits = Array.from({ length: SHOWN }, (_, k) => Math.floor((k * TEST_IMAGES) / SHOWN)).map((i) => ({
      position: this.task.test.positions[i],
      running: running.predictions[i],
      batch: batch.predictions[i] ?? null,
    }));
  }

  // The learning rate over the squared length of the weights (over the length, for Adam); without a norm it means nothing.
  effective(weights) {
    const { norm, rate, optimizer } = this.settings;
    return norm === "none" ? NaN : rate / (optimizer === "Adam" ? weights : weights ** 2);
  }

  // Loss and accuracy (in %) on the test images, with running statistics or with those of each test batch.
  evaluate(statistics) {
    const { x, labels } = this.task.test;
    const size = statistics === "batch" ? this.shared.testbatch : labels.length;
    let [loss, predictions] = [0, []];
    for (let start = 0; start < labels.length; start += size) {
      const positions = [...Array(Math.min(size, labels.length - start)).keys()].map((i) => start + i);
      if (statistics === "batch" && positions.length === 1) break; // one image has no batch statistics
      const scores = this.network.forward(takeRows(x, positions), { statistics, remember: false, random: null });
      const result = crossEntropy(
        scores,
        positions.map((p) => labels[p]),
      );
      loss += result.loss * positions.length;
      predictions.push(...result.predictions);
    }
    return {
      loss: loss / predictions.length,
      accuracy: 100 * mean(predictions.map((one, i) => one === labels[i])),
      predictions,
    };
  }

  // One forward and backward pass of the probe with its batch statistics, and without dropout: nothing is changed.
  lookInside() {
    const { network, task, probe } = this;
    network.zeroGradients();
    const scores = network.forward(probe, { statistics: "batch", remember: false, random: null });
    network.backward(crossEntropy(scores, task.train.labels.slice(0, probe.rows)).gradient);
    const layers = network.activations.map((activation, i) => ({
      ...describe(activation.x.values),
      dead: silent(activation.y),
      gradient: Math.sqrt(squares(network.linears[i].weight.gradient)),
    }));
    const norms = network.norms
      .filter((norm) => norm.kind === "batch")
      .map((norm) => ({
        batchMean: norm.statistics.mean,
        batchVariance: norm.statistics.variance,
        runningMean: norm.running.mean.slice(),
        runningVariance: norm.running.variance.slice(),
      }));
    return { layers, norms, shift: this.shift() };
  }

  // How far the mean of an input of the hidden layers has moved since the start, in standard deviations: the median.
  shift() {
    const inputs = this.network.linears.slice(1).map((linear) => columns(linear.x));
    this.inputsAtStart ??= inputs;
    const moved = inputs.flatMap((now, layer) => {
      const start = this.inputsAtStart[layer];
      return Array.from(now.mean, (middle, c) => Math.abs(middle - start.mean[c]) / start.std[c]);
    });
    return moved.filter(Number.isFinite).sort((a, b) => a - b)[Math.floor(moved.length / 2)];
  }
}

function mean(values) {
  let sum = 0;
  for (const value of values) sum += Number(value);
  return sum / values.length;
}

function squares(values) {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * values[i];
  return sum;
}

// The means and standard deviations of the columns.
function columns(x) {
  const { mean, variance } = meanAndVariance(x, tiling(x.rows, x.columns, 1, x.columns));
  return { mean, std: variance.map(Math.sqrt) };
}

// Mean, standard deviation and histogram of all values together.
function describe(values) {
  const middle = mean(values);
  const histogram = new Array(BINS).fill(0);
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    sum += (values[i] - middle) ** 2;
    const bin = Math.floor(((values[i] + REACH) / (2 * REACH)) * BINS) || 0; // not a number: as 0
    histogram[Math.max(0, Math.min(BINS - 1, bin))] += 1 / values.length;
  }
  return { mean: middle, std: Math.sqrt(sum / values.length), histogram };
}

// The share of columns (in %) that are not above 0 in any row: units that the probe cannot wake.
function silent(x) {
  const awake = new Array(x.columns).fill(false);
  for (let i = 0; i < x.values.length; i++) if (x.values[i] > 0) awake[i % x.columns] = true;
  return 100 * mean(awake.map((one) => !one));
}

// What a preset's sentence is about: a number for each run.
const last = (run) => run.history.at(-1);
const MEASURES = {
  accuracy: (run) => last(run).accuracy,
  "what the mode changes": (run) => last(run).batchAccuracy - last(run).accuracy,
  "predictions that the mode changes": (run) => last(run).disagree,
  "gradient of the first layer, at the start": (run) => Math.log10(run.history[0].firstGradient),
  "gradient of the first layer against the last, at the start": (run) =>
    Math.log10(run.history[0].firstGradient / run.history[0].lastGradient),
  "growth of the weights": (run) => last(run).weights / run.history[0].weights,
  "shift of the layers' inputs": (run) => last(run).shift,
  "spread in the last layer, at the start": (run) => run.history[0].spread,
  "steps taken": (run) => last(run).step,
};

class Experiment {
  constructor({ shared, a, b }, digits, times = TIMES) {
    Object.assign(this, { shared, settings: [a, b], digits, runs: [[], []], step: 0, steps: shared.steps, ready: false });
    this.every = Math.max(1, Math.round(shared.steps / times)); // or every step, if `closely` is set
  }

  // Trains to the end; every `yield` is a place to stop, to report, or to let others work.
  *train() {
    const { shared, settings, digits } = this;
    for (let seed = shared.seed; seed < shared.seed + shared.seeds; seed++) {
      for (const network of [0, 1]) {
        this.runs[network].push(new Run(settings[network], shared, digits, seed));
        yield;
      }
    }
    yield* this.measure(0);
    this.ready = true; // measured before the first step
    while (!this.over) {
      for (const run of this.all) {
        run.step();
        yield;
      }
      const step = this.step + 1;
      if (this.closely || step % this.every === 0 || step === this.steps) yield* this.measure(step);
      this.step = step;
      yield;
    }
  }

  *measure(step) {
    for (const run of this.all) {
      if (!run.stopped) run.measure(step);
      yield;
    }
  }

  get over() {
    return this.step === this.steps || this.all.every((run) => run.stopped);
  }

  get all() {
    return this.runs.flat();
  }
}
