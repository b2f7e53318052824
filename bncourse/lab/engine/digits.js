// The book's digits: 1,797 scans of 8 x 8 pixels that come with scikit-learn, from 0 to 16.

// As bncourse/lab/digits.py packs them: a letter is a pixel (a = 1, ..., p = 16), a number so many pixels of 0.
function unpackDigits({ pixels, labels }) {
  const images = [];
  for (const [token] of pixels.matchAll(/\d+|[a-p]/g)) {
    if (token >= "a") images.push(token.charCodeAt(0) - 96);
    else for (let i = Number(token); i > 0; i--) images.push(0);
  }
  return { images: Float32Array.from(images), labels: Array.from(labels, Number) };
}

function takeRows(x, positions) {
  const result = new Matrix(positions.length, x.columns, x.Floats);
  positions.forEach((position, r) => result.row(r).set(x.row(position)));
  return result;
}

const SCALES = { raw: 255 / 16 }; // bytes, as an image file has them; otherwise pixels are from 0 to 1
const TEST_IMAGES = 397;

// Images and labels to learn from and to be judged by: another split for each seed.
function makeTask(digits, { data, images, order }, seed) {
  const shuffled = new Random(seed, "split").permutation(digits.labels.length);
  const test = shuffled.slice(-TEST_IMAGES);
  if (order === "sorted") test.sort((i, j) => digits.labels[i] - digits.labels[j]);
  const all = new Matrix(
    digits.labels.length,
    64,
    Float32Array,
    Float32Array.from(digits.images, (p) => p * (SCALES[data] ?? 1 / 16)),
  );
  const part = (positions) => ({
    x: takeRows(all, positions),
    labels: positions.map((i) => digits.labels[i]),
    positions,
  });
  const task = { train: part(shuffled.slice(0, images)), test: part(test) };
  if (data === "wrong labels") {
    const random = new Random(seed, "wrong labels");
    task.train.labels = task.train.labels.map((label) =>
      random.uniform() < 0.2 ? (label + 1 + Math.floor(9 * random.uniform())) % 10 : label,
    );
  }
  return task;
}

// The order in which training images come, the same for all networks with this seed: epoch after epoch in a new random
// order; sorted data come class by class.
class Stream {
  constructor(labels, data, seed) {
    Object.assign(this, { labels, sorted: data === "sorted", random: new Random(seed, "order"), waiting: [] });
  }

  next(count) {
    while (this.waiting.length < count) {
      const epoch = this.random.permutation(this.labels.length);
      if (this.sorted) epoch.sort((i, j) => this.labels[i] - this.labels[j]);
      this.waiting.push(...epoch);
    }
    return this.waiting.splice(0, count);
  }
}
