// A fully connected network for the digits, its loss, and the two optimizers.

class Network {
  // settings: see settings.js; seed: of the initial weights; sizes: inputs and classes.
  constructor(settings, { seed = 0, inputs = 64, classes = 10, Floats = Float32Array } = {}) {
    const { norm, depth, width, activation, gain, dropout } = settings;
    const he = activation === "relu" ? 2 : 1; // He et al. 2015; half of that where an activation keeps both sides
    const linear = (from, to, name, bias) =>
      new Linear(from, to, {
        bias,
        std: gain * Math.sqrt(he / from),
        random: new Random(seed, `weights of ${name}`),
        Floats,
      });
    const makeNorm = (features) => (norm === "none" ? [] : [new Norm(norm, features, { ...settings, Floats })]);
    const drop = () => (dropout > 0 ? [new Dropout(dropout)] : []);
    this.layers = settings.input ? makeNorm(inputs) : [];
    for (let i = 0; i < depth; i++) {
      const early = settings.drop === "before the norm" ? drop() : [];
      const late = settings.drop === "before the norm" ? [] : drop();
      const normed = [...early, ...makeNorm(width)];
      const activated = [new Activation(activation)];
      this.layers.push(linear(i === 0 ? inputs : width, width, i, settings.bias));
      this.layers.push(
        ...(settings.place === "after" ? [...activated, ...normed] : [...normed, ...activated]),
        ...late,
      );
    }
    this.layers.push(linear(width, classes, "the last layer", true));
    this.parameters = this.layers.flatMap((layer) => layer.parameters);
    this.linears = this.layers.filter((layer) => layer instanceof Linear);
    this.norms = this.layers.filter((layer) => layer instanceof Norm);
    this.activations = this.layers.filter((layer) => layer instanceof Activation);
    this.remembers = this.norms.some((layer) => layer.remembers);
  }

  forward(x, mode) {
    return this.layers.reduce((value, layer) => layer.forward(value, mode), x);
  }

  backward(dscores) {
    return this.layers.reduceRight((gradient, layer) => layer.backward(gradient), dscores);
  }

  zeroGradients() {
    for (const parameter of this.parameters) parameter.gradient.fill(0);
  }
}

// The mean cross-entropy of scores (N, classes) in nats, the predicted classes, and the gradient of the scores.
function crossEntropy(scores, labels) {
  const gradient = new Matrix(scores.rows, scores.columns, scores.Floats);
  const predictions = [];
  let loss = 0;
  for (let r = 0; r < scores.rows; r++) {
    const [row, dscores] = [scores.row(r), gradient.row(r)];
    const largest = Math.max(...row);
    let sum = 0;
    for (const score of row) sum += Math.exp(score - largest);
    loss += Math.log(sum) + largest - row[labels[r]];
    predictions.push(row.indexOf(largest));
    for (let c = 0; c < row.length; c++)
      dscores[c] = (Math.exp(row[c] - largest) / sum - (c === labels[r])) / scores.rows;
  }
  return { loss: loss / scores.rows, predictions, gradient };
}

// torch.optim.SGD without momentum.
class SGD {
  constructor(parameters, { rate, decay = 0 }) {
    Object.assign(this, { parameters, rate, decay });
  }

  step() {
    for (const { values, gradient } of this.parameters) {
      for (let i = 0; i < values.length; i++) values[i] -= this.rate * (gradient[i] + this.decay * values[i]);
    }
  }
}

// torch.optim.Adam (Kingma and Ba 2015), its weight decay added to the gradient.
class Adam {
  constructor(parameters, { rate, decay = 0 }) {
    this.first = parameters.map(({ values }) => new values.constructor(values.length));
    this.second = parameters.map(({ values }) => new values.constructor(values.length));
    Object.assign(this, { parameters, rate, decay, steps: 0 });
  }

  step() {
    this.steps += 1;
    const [b1, b2, eps] = [0.9, 0.999, 1e-8];
    const [c1, c2] = [1 - b1 ** this.steps, 1 - b2 ** this.steps];
    this.parameters.forEach(({ values, gradient }, p) => {
      const [first, second] = [this.first[p], this.second[p]];
      for (let i = 0; i < values.length; i++) {
        const g = gradient[i] + this.decay * values[i];
        first[i] += (1 - b1) * (g - first[i]);
        second[i] += (1 - b2) * (g * g - second[i]);
        values[i] -= (this.rate * (first[i] / c1)) / (Math.sqrt(second[i] / c2) + eps);
      }
    });
  }
}

const OPTIMIZERS = { SGD, Adam };
