// The one operation behind every norm: standardize over some values, then scale and shift.
// The same two formulas as bncourse/standardize.py, which `standardize` and `standardizeBackward` are named after.

// Which values of a matrix (N, F) share a mean and a variance: those in the same tile. The rows are cut into blocks and
// the columns too, as evenly as can be; tile `of[i]` has the i-th value, and `sizes` says how many a tile has.
function tiling(rows, columns, rowBlocks, columnBlocks) {
  const block = (i, size, blocks) => { // as torch.tensor_split cuts: the longer blocks first
    const [length, longer] = [Math.floor(size / blocks), size % blocks];
    const first = longer * (length + 1);
    return i < first ? Math.floor(i / (length + 1)) : longer + Math.floor((i - first) / length);
  };
  const of = Int32Array.from({ length: rows * columns }, (_, i) => {
    const [r, c] = [Math.floor(i / columns), i % columns];
    return block(r, rows, rowBlocks) * columnBlocks + block(c, columns, columnBlocks);
  });
  const sizes = new Float64Array(rowBlocks * columnBlocks);
  for (const tile of of) sizes[tile] += 1;
  return { of, sizes };
}

// The mean of the values of each tile.
function means(values, { of, sizes }) {
  const sums = new Float64Array(sizes.length);
  for (let i = 0; i < of.length; i++) sums[of[i]] += values[i];
  return sums.map((sum, tile) => sum / sizes[tile]);
}

// Mean, and mean squared distance from it, of each tile. (The shortcut E[x^2] - E[x]^2 would lose all digits of a
// variance that is small beside the mean.)
function meanAndVariance(x, tiles, center = true) {
  const mean = center ? means(x.values, tiles) : new Float64Array(tiles.sizes.length);
  const sums = new Float64Array(tiles.sizes.length);
  for (let i = 0; i < tiles.of.length; i++) {
    const distance = x.values[i] - mean[tiles.of[i]];
    sums[tiles.of[i]] += distance * distance;
  }
  return { mean, variance: sums.map((sum, tile) => sum / tiles.sizes[tile]) };
}

const inverseStd = (variance, eps) => variance.map((v) => 1 / Math.sqrt(v + eps));

// output = (x - mean) / sqrt(variance + eps) * weight + bias; weight and bias have one number for each column, or are null.
function standardize(x, tiles, { weight = null, bias = null, eps = 1e-5, statistics = null, center = true, old = null }) {
  const { mean, variance } = statistics ?? meanAndVariance(x, tiles, center);
  const scale = inverseStd(variance, eps);
  const output = Matrix.like(old, x);
  for (let r = 0, i = 0; r < x.rows; r++) {
    for (let c = 0; c < x.columns; c++, i++) {
      const xHat = (x.values[i] - mean[tiles.of[i]]) * scale[tiles.of[i]];
      output.values[i] = (weight ? xHat * weight[c] : xHat) + (bias ? bias[c] : 0);
    }
  }
  return { output, mean, variance };
}

// With g = dy * weight: dx = (g - mean(g) - xHat * mean(g * xHat)) / std. Statistics that were given are constants, and
// then dx = g / std; without centering the mean of g stays. Returns dx, dweight and dbias.
function standardizeBackward(dy, x, tiles, { weight = null, eps = 1e-5, statistics, given = false, center = true, old = null }) {
  const { mean, variance } = statistics;
  const scale = inverseStd(variance, eps);
  const [dweight, dbias] = [new Float64Array(x.columns), new Float64Array(x.columns)];
  const [g, xHat, products] = [0, 0, 0].map(() => new Float64Array(x.values.length));
  for (let r = 0, i = 0; r < x.rows; r++) {
    for (let c = 0; c < x.columns; c++, i++) {
      xHat[i] = (x.values[i] - mean[tiles.of[i]]) * scale[tiles.of[i]];
      g[i] = weight ? dy.values[i] * weight[c] : dy.values[i];
      products[i] = g[i] * xHat[i];
      dweight[c] += dy.values[i] * xHat[i];
      dbias[c] += dy.values[i];
    }
  }
  const none = new Float64Array(tiles.sizes.length);
  const meanG = given || !center ? none : means(g, tiles);
  const meanProduct = given ? none : means(products, tiles);
  const dx = Matrix.like(old, x);
  for (let i = 0; i < g.length; i++) {
    const tile = tiles.of[i];
    dx.values[i] = (g[i] - meanG[tile] - xHat[i] * meanProduct[tile]) * scale[tile];
  }
  return { dx, dweight, dbias };
}
