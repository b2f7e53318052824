// The lab's pictures, by hand on a canvas: lines with bands, histograms in rows, points, digits. Of the libraries that pip
// can pin, uPlot draws the lines only, and would add more text than it saves; Plotly, Bokeh and Vega outweigh the page.

const FONT = "12px system-ui, sans-serif";

// A canvas ready to be drawn on: sharp on every screen, empty, with the page's colours.
function begin(canvas, height) {
  const width = canvas.parentElement.clientWidth || 320;
  const sharp = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * sharp) || canvas.height !== Math.round(height * sharp)) {
    canvas.width = Math.round(width * sharp);
    canvas.height = Math.round(height * sharp);
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = FONT;
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--bn-${name}`).trim();
  return { pen, width, height, ink: style.color, grid: colour("grid"), colours: [colour("a"), colour("b")] };
}

// Round numbers from low to high, about `count` of them.
function ticks(low, high, count = 4) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step)
    found.push(Number(tick.toPrecision(12)));
  return found;
}

function powers(low, high) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const step = Math.max(1, Math.ceil((last - first) / 5));
  const found = [];
  for (let power = first; power <= last; power += step) found.push(10 ** power);
  return found.length > 1 ? found : [low, high];
}

// A number as people write it: 0.05, 1.4, 3·10⁻⁷, with a true minus.
function short(value) {
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) {
    const [digits, power] = value.toExponential(1).replace(".0e", "e").split("e");
    const raised = String(Number(power)).replace(/./g, (sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(sign)]);
    return `${digits === "1" ? "" : `${digits}·`}10${raised}`.replace("-", "−");
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

// Axes around a plot, and the functions that say where a value lies on it.
function axes(canvas, { height = 210, x, y, xLabel, yLabel, log = false, xTicks = null }) {
  const sheet = begin(canvas, height);
  const { pen, width, ink, grid } = sheet;
  const [left, right, top, bottom] = [46, 22, 22, 36];
  const of = (value) => (log ? Math.log10(value) : value);
  const [low, high] = [of(y[0]), of(y[1])];
  const toX = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const toY = (value) => {
    const place = Math.max(-0.02, Math.min(1.02, (of(value) - low) / (high - low || 1)));
    return height - bottom - place * (height - top - bottom);
  };
  pen.lineWidth = 1;
  pen.strokeStyle = grid;
  pen.fillStyle = ink;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const tick of log ? powers(...y) : ticks(...y)) {
    pen.beginPath();
    pen.moveTo(left, toY(tick));
    pen.lineTo(width - right, toY(tick));
    pen.stroke();
    pen.fillText(short(tick), left - 6, toY(tick));
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  for (const tick of xTicks ?? ticks(...x, width < 400 ? 3 : 5))
    pen.fillText(short(tick), toX(tick), height - bottom + 5);
  pen.fillText(xLabel, (left + width - right) / 2, height - 15);
  pen.textAlign = "left";
  pen.fillText(yLabel, 4, 3);
  return { ...sheet, toX, toY };
}

// Lines over x. A line: {x, y, colour (0 for A, 1 for B), dash, name, low, high}; values that are not finite are left out.
function drawLines(canvas, { lines, range = null, dots = false, ...options }) {
  const finite = (values) => values.filter((value) => Number.isFinite(value) && (!options.log || value > 0));
  const all = finite(lines.flatMap((line) => [...line.y, ...(line.low ?? []), ...(line.high ?? [])]));
  const xs = lines.flatMap((line) => line.x);
  let y = range ?? [Math.min(...all), Math.max(...all)];
  if (!all.length && !range) y = [options.log ? 0.1 : 0, 1];
  if (y[0] === y[1]) y = options.log ? [y[0] / 3, y[0] * 3] : [y[0] - 0.5, y[0] + 0.5];
  const plot = axes(canvas, { x: options.x ?? [Math.min(...xs, 0), Math.max(...xs, 1)], y, ...options });
  const { pen, toX, toY, colours } = plot;
  const taken = [];
  for (const line of lines) {
    const usable = (value) => Number.isFinite(value) && (!options.log || value > 0);
    pen.strokeStyle = pen.fillStyle = colours[line.colour];
    if (line.low) {
      const inside = line.x.map((_, i) => i).filter((i) => usable(line.low[i]) && usable(line.high[i]));
      pen.globalAlpha = 0.18;
      pen.beginPath();
      for (const i of inside) pen.lineTo(toX(line.x[i]), toY(line.high[i]));
      for (const i of inside.reverse()) pen.lineTo(toX(line.x[i]), toY(line.low[i]));
      pen.fill();
      pen.globalAlpha = 1;
    }
    pen.lineWidth = line.dash ? 1.5 : 2.2;
    pen.setLineDash(line.dash ? [5, 4] : []);
    pen.beginPath();
    let end = null;
    line.x.forEach((x, i) => {
      if (!usable(line.y[i])) return;
      end = [toX(x), toY(line.y[i])];
      pen.lineTo(...end);
    });
    pen.stroke();
    pen.setLineDash([]);
    if (dots) line.x.forEach((x, i) => usable(line.y[i]) && pen.fillRect(toX(x) - 2, toY(line.y[i]) - 2, 4, 4));
    if (end && line.name) {
      pen.fillRect(end[0] - 2.5, end[1] - 2.5, 5, 5);
      let at = end[1];
      const lowest = plot.height - 42;
      for (const other of taken) if (Math.abs(other - at) < 13) at = other + (at >= other && other < lowest ? 13 : -13);
      taken.push(at);
      pen.textBaseline = "middle";
      pen.font = `600 ${FONT}`;
      const right = end[0] + 6 + pen.measureText(line.name).width > plot.width; // no room there
      pen.textAlign = right ? "right" : "left";
      pen.fillText(line.name, end[0] + (right ? -6 : 6), at - (right || line.x.length === 1 ? 12 : 0));
      pen.font = FONT;
    }
  }
}

// Histograms in rows, the first layer at the top: A on the left, B on the right.
function drawHistograms(canvas, sides) {
  const rows = Math.max(...sides.map((layers) => layers.length));
  const height = 40 + rows * 24 + 24;
  const { pen, width, ink, grid, colours } = begin(canvas, height);
  const half = (width - 60) / 2;
  sides.forEach((layers, side) => {
    const left = 26 + side * (half + 26);
    const room = half;
    pen.fillStyle = colours[side];
    pen.textAlign = "center";
    pen.textBaseline = "top";
    pen.font = `600 ${FONT}`;
    pen.fillText(side ? "B" : "A", left + room / 2, 2);
    pen.font = FONT;
    layers.forEach(({ number, histogram }, row) => {
      const base = 44 + row * 24;
      const tallest = Math.max(...histogram);
      pen.strokeStyle = grid;
      pen.beginPath();
      pen.moveTo(left, base);
      pen.lineTo(left + room, base);
      pen.stroke();
      pen.fillStyle = colours[side];
      histogram.forEach((share, bin) => {
        const tall = (share / tallest) * 20;
        pen.fillRect(left + (bin / histogram.length) * room, base - tall, room / histogram.length - 0.5, tall);
      });
      pen.fillStyle = ink;
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(number, left - 6, base - 9);
    });
    pen.fillStyle = ink;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const value of [-4, -2, 0, 2, 4])
      pen.fillText(short(value), left + Math.max(8, Math.min(room - 8, ((value + 4) / 8) * room)), height - 18);
  });
}

// Points against the diagonal, one panel for each entry {title, x, y, colour, log}, two side by side.
function drawPoints(canvas, panels, xLabel) {
  const columns = 2;
  const [wide, tall] = [(canvas.parentElement.clientWidth || 320) / columns, 220];
  const { pen, ink, grid, colours } = begin(canvas, tall * Math.ceil(panels.length / columns));
  panels.forEach(({ title, x, y, colour, log }, i) => {
    const [left, top] = [(i % columns) * wide + 44, Math.floor(i / columns) * tall + 24];
    const [w, h] = [wide - 60, tall - 64];
    const of = (value) => (log ? Math.log10(Math.max(value, 1e-12)) : value);
    const all = [...x, ...y].map(of).filter(Number.isFinite);
    const [low, high] = [Math.min(...all, log ? -1 : -0.1), Math.max(...all, log ? 0 : 0.1)];
    const toX = (value) => left + ((of(value) - low) / (high - low)) * w;
    const toY = (value) => top + h - ((of(value) - low) / (high - low)) * h;
    pen.strokeStyle = grid;
    pen.strokeRect(left, top, w, h);
    pen.beginPath();
    pen.moveTo(left, top + h);
    pen.lineTo(left + w, top);
    pen.stroke();
    pen.fillStyle = ink;
    pen.textAlign = "left";
    pen.textBaseline = "bottom";
    pen.fillText(title, left, top - 4);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText(short(log ? 10 ** high : high), left - 4, top + 6);
    pen.fillText(short(log ? 10 ** low : low), left - 4, top + h - 4);
    pen.textBaseline = "top";
    pen.textAlign = "center";
    pen.fillText(xLabel, left + w / 2, top + h + 5);
    pen.fillStyle = colours[colour];
    x.forEach((value, k) => {
      if (!Number.isFinite(of(value) + of(y[k]))) return;
      pen.beginPath();
      pen.arc(toX(value), toY(y[k]), 2.5, 0, 7);
      pen.fill();
    });
  });
}

// Test images with what each network takes them for; a wrong answer is struck through, so that colour is not needed.
function drawDigits(canvas, digits, rows) {
  const width = canvas.parentElement.clientWidth || 320;
  const columns = Math.min(digits.length, Math.max(3, Math.floor(width / 76)));
  const [wide, tall] = [width / columns, 56 + rows.length * 17];
  const { pen, ink, colours } = begin(canvas, Math.ceil(digits.length / columns) * tall);
  digits.forEach(({ pixels, label }, i) => {
    const [left, top] = [(i % columns) * wide + 4, Math.floor(i / columns) * tall + 4];
    pixels.forEach((value, p) => {
      pen.fillStyle = ink;
      pen.globalAlpha = value / 16;
      pen.fillRect(left + (p % 8) * 5, top + Math.floor(p / 8) * 5, 5, 5);
    });
    pen.globalAlpha = 1;
    pen.textAlign = "left";
    pen.textBaseline = "top";
    pen.fillText(label, left + 46, top + 14);
    rows.forEach(({ name, colour, predictions }, row) => {
      const [x, y] = [left, top + 46 + row * 17];
      const wrong = predictions[i] !== null && predictions[i] !== label;
      pen.fillStyle = colours[colour];
      pen.font = wrong ? `700 ${FONT}` : FONT;
      const text = `${name} ${predictions[i] ?? "–"}${wrong ? " ✗" : ""}`;
      pen.fillText(text, x, y);
      pen.font = FONT;
    });
  });
}
