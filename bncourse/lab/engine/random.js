// Random numbers that are a function of a seed and the name of what they are for.

class Random {
  constructor(seed, purpose) {
    this.state = seed | 0;
    for (const letter of purpose) this.state = Math.imul(this.state ^ letter.charCodeAt(0), 0x9e3779b1);
    for (let i = 0; i < 8; i++) this.uniform();
  }

  // Uniform in [0, 1): the generator mulberry32.
  uniform() {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  // Standard normal, by Box and Muller.
  normal() {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform());
  }

  // 0, 1, ..., count - 1 in random order, by Fisher and Yates.
  permutation(count) {
    const order = Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = Math.floor(this.uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // What dropout keeps: 1 with probability 1 - rate, else 0.
  mask(length, rate) {
    return Float32Array.from({ length }, () => (this.uniform() < rate ? 0 : 1));
  }
}
