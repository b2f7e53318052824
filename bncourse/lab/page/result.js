// What is said at the end of a run.

const tidy = (value) =>
  (Math.abs(value) < 1e-9
    ? "0"
    : Math.abs(value) >= 10
      ? value.toFixed(1)
      : String(Number(value.toPrecision(2)))
  ).replace("-", "−");

// A measured number; a factor is measured as its decimal logarithm.
const figure = (value, unit) =>
  unit === "factor" ? Number((10 ** value).toPrecision(2)).toLocaleString("en") : tidy(value);

// The same with its unit.
function quantity(value, unit) {
  if (unit === "factor") return `a factor of ${figure(value, unit)}`;
  return `${figure(value, unit)}${unit && unit !== "%" ? ` ${unit}` : unit}`;
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const stopped = ({ seeds }) => seeds.every((seed) => seed.stopped);

// What this run measured, beside the guess, and what the preset did on ten seeds: paragraphs [lead, text].
function resultOf(nets, { preset, changed, guess, ten }) {
  const { measure, of, unit, answers, sentence } = preset;
  const [a, b] = nets.map(({ seeds }) => average(seeds.map(({ values }) => values[measure]).filter(Number.isFinite)));
  const value = { A: a, B: b, "A - B": a - b }[of];
  const run = [];
  if (Number.isFinite(value)) {
    const answer = answers.find(({ from = -Infinity, to = Infinity }) => value >= from && value <= to);
    const whose = of.replace("-", unit === "factor" ? "against" : "minus");
    run.push(`Measured: ${measure} (${whose}): ${quantity(value, unit)}.`);
    if (answer) run.push(`The answer: “${answer.text}”.`);
    if (guess !== null) run.push(answers[guess] === answer ? "You guessed it." : `You guessed: “${answers[guess].text}”.`);
  } else run.push("There is no number for the question, because a network stopped.");
  const kept = [sentence.replace("{value}", quantity(ten.mean, unit))];
  const [low, high] = [ten.low, ten.high].map((end) => figure(end, unit));
  if (low !== high) kept.push(`The 95% interval of this mean is ${low} to ${high}.`);
  return [
    [changed ? "This run, with your change." : "This run.", run.join(" ")],
    [`The preset${changed ? " without your change" : ""}, on ${ten.count} seeds.`, kept.join(" ")],
  ];
}
