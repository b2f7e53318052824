// Matrices, and the one product that a network needs.

class Matrix {
  constructor(rows, columns, Floats = Float32Array, values = new Floats(rows * columns)) {
    Object.assign(this, { rows, columns, values, Floats });
  }

  // A matrix of this shape: the old one if it has the shape, so that training makes no garbage.
  static reuse(old, rows, columns, Floats) {
    return old && old.rows === rows && old.columns === columns ? old : new Matrix(rows, columns, Floats);
  }

  static like(old, x) {
    return Matrix.reuse(old, x.rows, x.columns, x.Floats);
  }

  row(i) {
    return this.values.subarray(i * this.columns, (i + 1) * this.columns);
  }
}

function transpose(x, old) {
  const result = Matrix.reuse(old, x.columns, x.rows, x.Floats);
  for (let r = 0; r < x.rows; r++) for (let c = 0; c < x.columns; c++) result.values[c * x.rows + r] = x.values[r * x.columns + c];
  return result;
}

// The product of a (N, K) and the transpose of b (M, K): (N, M). Every value is the dot product of two rows. Two rows of
// `a` meet four of `b` at a time: eight sums for six numbers read, which is three times as fast as one by one.
function timesTransposed(a, b, old) {
  const [n, m, k] = [a.rows, b.rows, a.columns];
  const result = Matrix.reuse(old, n, m, a.Floats);
  const [x, y, out] = [a.values, b.values, result.values];
  const [wholeRows, wholeColumns] = [n - (n % 2), m - (m % 4)];
  for (let i = 0; i < wholeRows; i += 2) {
    const [a0, a1] = [i * k, i * k + k];
    for (let j = 0; j < wholeColumns; j += 4) {
      const b0 = j * k, b1 = b0 + k, b2 = b1 + k, b3 = b2 + k;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let p = 0; p < k; p++) {
        const u = x[a0 + p], v = x[a1 + p], y0 = y[b0 + p], y1 = y[b1 + p], y2 = y[b2 + p], y3 = y[b3 + p];
        s00 += u * y0; s01 += u * y1; s02 += u * y2; s03 += u * y3;
        s10 += v * y0; s11 += v * y1; s12 += v * y2; s13 += v * y3;
      }
      const o = i * m + j, q = o + m;
      out[o] = s00; out[o + 1] = s01; out[o + 2] = s02; out[o + 3] = s03;
      out[q] = s10; out[q + 1] = s11; out[q + 2] = s12; out[q + 3] = s13;
    }
  }
  for (let i = 0; i < n; i++) {
    for (let j = i < wholeRows ? wholeColumns : 0; j < m; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += x[i * k + p] * y[j * k + p];
      out[i * m + j] = sum;
    }
  }
  return result;
}
