// What is said at the end of a run.

const tidy = (value) =>
  (Math.abs(value) < 1e-9
    ? "0"
    : Math.abs(value) >= 10
      ? value.toFixed(1)
      : String(Number(value.toPrecision(2)))
  ).replace("-", "−");

// A measured value in its unit. A factor is measured as its logarithm.
function quantity(value, unit) {
  if (unit === "factor") return `a factor of ${Number((10 ** value).toPrecision(2)).toLocaleString("en")}`;
  return `${tidy(value)}${unit === "%" ? "%" : unit && ` ${unit}`}`;
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const stopped = ({ seeds }) => seeds.every((seed) => seed.stopped);

// The guess beside what this run measured, and what the preset did on ten seeds: paragraphs [lead, text].
function resultOf(nets, { preset, changed, guess, ten }) {
  const { measure, of, unit, answers, sentence, comment } = preset;
  const [a, b] = nets.map(({ seeds }) => average(seeds.map(({ values }) => values[measure]).filter(Number.isFinite)));
  const value = { A: a, B: b, "A - B": a - b }[of];
  const answer = answers.find(({ from = -Infinity, to = Infinity }) => value >= from && value <= to);
  const whose = of.replace("-", unit === "factor" ? "against" : "minus");
  const run = Number.isFinite(value)
    ? `Measured: ${measure} (${whose}): ${quantity(value, unit)}. The answer: “${answer.text}”.`
    : "It has no number for the question: a network stopped.";
  const guessed = guess === null ? "" : answers[guess] === answer ? " You guessed it." : ` You guessed: “${answers[guess].text}”.`;
  const interval = unit === "factor" ? [10 ** ten.low, 10 ** ten.high].map((end) => Number(end.toPrecision(2)).toLocaleString("en")) : [tidy(ten.low), tidy(ten.high)];
  const spread = ten.low < ten.high ? ` The 95% interval of this mean is ${interval.join(" to ")}.` : "";
  return [
    [changed ? "This run, with your change." : "This run.", run + guessed],
    [
      changed ? `The preset without your change, on ${ten.count} seeds.` : `The preset on ${ten.count} seeds.`,
      sentence.replace("{value}", quantity(ten.mean, unit)) + spread,
    ],
    ["Look and try.", comment],
  ];
}
