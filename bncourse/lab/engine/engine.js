// What the page talks to, in a worker or, where there is none, on the page's own thread. Messages to it are
//   {load: digits}, {start: {shared, a, b, run}}, {run: steps a second}, {pause: true}, {step: true};
// it posts reports, which name the `run` that they are about: the first after `start`, on the networks before any step.
// It works in slices, so that a message never waits long.

class Engine {
  constructor(post, slice) {
    Object.assign(this, { post, slice });
  }

  receive({ load, start, run, pause, step }) {
    if (load) this.digits = unpackDigits(load);
    if (start) this.start(start);
    if (!this.experiment) return;
    if (run) Object.assign(this, { rate: run, since: performance.now(), from: this.experiment.step });
    if (pause || step) Object.assign(this, { rate: 0, goal: this.experiment.step + (step ? 1 : 0) });
    if (run || step) this.experiment.closely = step || run <= 10; // somebody watches
    if (start || run || step) this.workIn(0);
  }

  start({ run, ...settings }) {
    const experiment = new Experiment(settings, this.digits);
    Object.assign(this, { run, experiment, training: experiment.train(), rate: 0, goal: 0, sent: [], reported: 0 });
  }

  workIn(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.work(), milliseconds);
  }

  // One slice of the work, up to the step that is due at this speed.
  work() {
    const { experiment, rate, goal } = this;
    const start = performance.now();
    const due = rate ? this.from + 1 + ((start - this.since) / 1000) * rate : goal;
    const behind = () => !experiment.ready || experiment.step < due || experiment.over;
    let done = false;
    while (!done && behind() && performance.now() - start < this.slice) ({ done } = this.training.next());
    const resting = done || (!rate && !behind());
    if (!resting) this.workIn(behind() ? 0 : 30);
    this.report(done, resting);
  }

  // What is new since the last report. The insides of the first seed's network stand for those of the others.
  report(done, resting) {
    const { runs, step } = this.experiment;
    const news = runs.some((seeds, network) =>
      seeds.some((run, i) => run.history.length > (this.sent[2 * i + network] ?? 0)),
    );
    if (!news && !resting && performance.now() - this.reported < 100) return;
    this.reported = performance.now();
    const networks = runs.map((seeds, network) => ({
      seeds: seeds.map((run, i) => {
        const number = 2 * i + network;
        const points = run.history.slice(this.sent[number] ?? 0);
        this.sent[number] = run.history.length;
        return { points, stopped: run.stopped, values: done ? measured(run) : null };
      }),
      look: (news && seeds[0]?.look) || null,
    }));
    this.post({ run: this.run, step, done, networks });
  }
}

const measured = (run) => Object.fromEntries(Object.entries(MEASURES).map(([name, of]) => [name, of(run)]));
