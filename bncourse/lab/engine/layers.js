// The layers of a fully connected network. Each has forward(x, mode) and backward(dy), which returns dx and adds to the
// gradients of its parameters. `mode` says what the training and the evaluation mode of torch decide:
//   statistics: "batch" or "running";  remember: whether running averages move;  random: draws dropout's masks, or null.

class Parameter {
  constructor(values) {
    this.values = values;
    this.gradient = new values.constructor(values.length);
  }
}

function add(sums, values) {
  for (let i = 0; i < sums.length; i++) sums[i] += values[i];
}

class Linear {
  constructor(inputs, outputs, { bias = true, std, random, Floats }) {
    this.weight = new Parameter(Floats.from({ length: outputs * inputs }, () => std * random.normal())); // (out, in)
    this.bias = bias ? new Parameter(new Floats(outputs)) : null;
    this.parameters = [this.weight, this.bias].filter(Boolean);
    Object.assign(this, { inputs, outputs, Floats });
  }

  get matrix() {
    return new Matrix(this.outputs, this.inputs, this.Floats, this.weight.values);
  }

  forward(x) {
    this.x = x;
    this.y = timesTransposed(x, this.matrix, this.y);
    if (this.bias) {
      const [y, bias] = [this.y.values, this.bias.values];
      for (let i = 0; i < y.length; i++) y[i] += bias[i % this.outputs];
    }
    return this.y;
  }

  backward(dy) {
    this.dyT = transpose(dy, this.dyT);
    this.xT = transpose(this.x, this.xT);
    this.dweight = timesTransposed(this.dyT, this.xT, this.dweight);
    add(this.weight.gradient, this.dweight.values);
    if (this.bias) for (let i = 0; i < dy.values.length; i++) this.bias.gradient[i % this.outputs] += dy.values[i];
    this.weightT = transpose(this.matrix, this.weightT);
    this.dx = timesTransposed(dy, this.weightT, this.dx);
    return this.dx;
  }
}

// The norms differ in which values share statistics (functional.py has the table), and batch and ghost remember them.
class Norm {
  constructor(kind, features, { eps = 1e-5, momentum = 0.1, affine = true, ghost = 16, Floats }) {
    this.weight = affine ? new Parameter(new Floats(features).fill(1)) : null;
    this.bias = affine && kind !== "rms" ? new Parameter(new Floats(features)) : null;
    this.parameters = [this.weight, this.bias].filter(Boolean);
    this.remembers = kind === "batch" || kind === "ghost";
    this.running = { mean: new Float64Array(features), variance: new Float64Array(features).fill(1) };
    this.groups = kind === "group" ? mostGroups(features) : 1;
    Object.assign(this, { kind, features, eps, momentum, ghost, center: kind !== "rms" });
  }

  tiles(rows, ghosts) {
    const key = `${rows} ${ghosts}`;
    if (this.tilesFor !== key) {
      this.tilesFor = key;
      this.tilesNow = tiling(rows, this.features, ...(this.remembers ? [ghosts, this.features] : [rows, this.groups]));
    }
    return this.tilesNow;
  }

  forward(x, mode) {
    const given = this.remembers && mode.statistics === "running";
    const ghosts = this.kind === "ghost" && !given ? Math.ceil(x.rows / this.ghost) : 1;
    const tiles = this.tiles(x.rows, ghosts);
    if (this.remembers && !given && tiles.sizes.some((size) => size < 2)) {
      throw new Error(
        `Expected more than 1 value per channel when training, got input size torch.Size([1, ${this.features}])`,
      );
    }
    const result = standardize(x, tiles, {
      weight: this.weight?.values,
      bias: this.bias?.values,
      eps: this.eps,
      center: this.center,
      statistics: given ? this.running : null,
      old: this.y,
    });
    Object.assign(this, { x, given, y: result.output, statistics: result });
    if (this.remembers && !given && mode.remember) this.remember(result, tiles);
    return this.y;
  }

  // running = (1 - momentum) * running + momentum * new, with the unbiased variance; ghost batches come in turn.
  remember({ mean, variance }, { sizes }) {
    for (let t = 0; t < sizes.length; t++) {
      const c = t % this.features;
      const unbiased = (variance[t] * sizes[t]) / (sizes[t] - 1);
      this.running.mean[c] += this.momentum * (mean[t] - this.running.mean[c]);
      this.running.variance[c] += this.momentum * (unbiased - this.running.variance[c]);
    }
  }

  backward(dy) {
    const { dx, dweight, dbias } = standardizeBackward(dy, this.x, this.tilesNow, {
      weight: this.weight?.values,
      eps: this.eps,
      statistics: this.statistics,
      given: this.given,
      center: this.center,
      old: this.dx,
    });
    if (this.weight) add(this.weight.gradient, dweight);
    if (this.bias) add(this.bias.gradient, dbias);
    this.dx = dx;
    return dx;
  }
}

// The most groups, 8 at the most, that divide the features and leave at least two in each.
function mostGroups(features) {
  for (let groups = 8; groups > 1; groups--) if (features % groups === 0 && features / groups >= 2) return groups;
  return 1;
}

const ACTIVATIONS = {
  // the function, and its derivative as a function of the output
  relu: [(x) => (x <= 0 ? 0 : x), (y) => (y <= 0 ? 0 : 1)], // what is not a number stays so, as in torch
  tanh: [Math.tanh, (y) => 1 - y * y],
  sigmoid: [(x) => 1 / (1 + Math.exp(-x)), (y) => y * (1 - y)],
};

class Activation {
  constructor(name) {
    [this.value, this.slope] = ACTIVATIONS[name];
    this.parameters = [];
  }

  forward(x) {
    this.x = x;
    this.y = Matrix.like(this.y, x);
    const { value, y } = this;
    for (let i = 0; i < x.values.length; i++) y.values[i] = value(x.values[i]);
    return y;
  }

  backward(dy) {
    this.dx = Matrix.like(this.dx, dy);
    const { slope, dx, y } = this;
    for (let i = 0; i < dy.values.length; i++) dx.values[i] = dy.values[i] * slope(y.values[i]);
    return dx;
  }
}

class Dropout {
  constructor(rate) {
    Object.assign(this, { rate, parameters: [] });
  }

  forward(x, { random }) {
    this.mask = random ? random.mask(x.values.length, this.rate) : null;
    return this.times(x, "y");
  }

  backward(dy) {
    return this.times(dy, "dx");
  }

  times(x, name) {
    if (!this.mask) return x;
    this[name] = Matrix.like(this[name], x);
    const [result, scale] = [this[name], 1 / (1 - this.rate)];
    for (let i = 0; i < x.values.length; i++) result.values[i] = x.values[i] * this.mask[i] * scale;
    return result;
  }
}
