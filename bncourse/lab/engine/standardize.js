// The one operation behind every norm: standardize over some values, then scale and shift.
// The same two formulas as bncourse/standardize.py, which `standardize` and `standardizeBackward` are named after.

// Which values of a matrix (N, F) share a mean and a variance: those in the same tile. The rows are cut into blocks and
// the columns too, as evenly as can be; tile `of[i]` has the i-th value, and `sizes` says how many a tile has.
function tiling(rows, columns, rowBlocks, columnBlocks) {
  const block = (i, size, blocks) => {
    // as torch.tensor_split cuts: the longer blocks first
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

// Mean, and mean squared distance from it, of each tile. (The shortcut E[x^2] - E[x]^2 would lose all digits of a
// variance that is small beside the mean.)
function meanAndVariance({ values }, { of, sizes }, center = true) {
  const [mean, variance] = [new Float64Array(sizes.length), new Float64Array(sizes.length)];
  if (center) for (let i = 0; i < of.length; i++) mean[of[i]] += values[i] / sizes[of[i]];
  for (let i = 0; i < of.length; i++) {
    const distance = values[i] - mean[of[i]];
    variance[of[i]] += (distance * distance) / sizes[of[i]];
  }
  return { mean, variance };
}

const inverseStd = (variance, eps) => variance.map((v) => 1 / Math.sqrt(v + eps));

// output = (x - mean) / sqrt(variance + eps) * weight + bias; weight and bias have one number for each column, or are null.
function standardize(
  x,
  tiles,
  { weight = null, bias = null, eps = 1e-5, statistics = null, center = true, old = null },
) {
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
function standardizeBackward(
  dy,
  x,
  tiles,
  { weight = null, eps = 1e-5, statistics, given = false, center = true, old = null },
) {
  const { mean, variance } = statistics;
  const { of, sizes } = tiles;
  const scale = inverseStd(variance, eps);
  const [dweight, dbias] = [new Float64Array(x.columns), new Float64Array(x.columns)];
  const [meanG, meanProduct] = [new Float64Array(sizes.length), new Float64Array(sizes.length)];
  for (let r = 0, i = 0; r < x.rows; r++) {
    for (let c = 0; c < x.columns; c++, i++) {
      const tile = of[i];
      const xHat = (x.values[i] - mean[tile]) * scale[tile];
      const g = weight ? dy.values[i] * weight[c] : dy.values[i];
      if (!given && center) meanG[tile] += g / sizes[tile];
      if (!given) meanProduct[tile] += (g * xHat) / sizes[tile];
      dweight[c] += dy.values[i] * xHat;
      dbias[c] += dy.values[i];
    }
  }
  const dx = Matrix.like(old, x);
  for (let r = 0, i = 0; r < x.rows; r++) {
    for (let c = 0; c < x.columns; c++, i++) {
      const tile = of[i];
      const xHat = (x.values[i] - mean[tile]) * scale[tile];
      const g = weight ? dy.values[i] * weight[c] : dy.values[i];
      dx.values[i] = (g - meanG[tile] - xHat * meanProduct[tile]) * scale[tile];
    }
  }
  return { dx, dweight, dbias };
}
