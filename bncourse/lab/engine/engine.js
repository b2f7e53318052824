// What the page talks to, in a worker or, where there is none, on the page's own thread. Messages to it are
//   {load: digits}, {start: {shared, a, b, run}}, {run: steps a second}, {pause: true}, {step: true};
// it posts reports, which name the `run` that they are about. It works in slices, so that a message never waits long.

class Engine {
  constructor(post, slice) {
    Object.assign(this, { post, slice, rate: 0 });
  }

  receive({ load, start, run, pause, step }) {
    if (load) this.digits = unpackDigits(load);
    if (start) this.start(start);
    if (run) {
      [this.rate, this.since, this.from] = [run, performance.now(), this.experiment.step];
      this.timer ??= setTimeout(() => this.work());
    }
    if (pause) this.rate = 0;
    if (step) {
      clearTimeout(this.timer);
      this.rate = 0;
      this.timer = setTimeout(() => this.work(this.experiment.step + 1));
    }
  }

  start({ run, ...settings }) {
    clearTimeout(this.timer);
    Object.assign(this, {
      run,
      timer: null,
      rate: 0,
      sent: [],
      reported: 0,
      experiment: new Experiment(settings, this.digits),
    });
    this.training = this.experiment.train();
  }

  // One slice of the work; `goal` is the step to stop at, by default the one that is due at this speed.
  work(goal = null) {
    this.timer = null;
    if (goal === null && !this.rate) return;
    const start = performance.now();
    const due = goal ?? this.from + 1 + ((start - this.since) / 1000) * this.rate;
    let done = false;
    while (!done && this.experiment.step < due && performance.now() - start < this.slice)
      ({ done } = this.training.next());
    if (goal !== null && !done && this.experiment.step < goal) this.timer = setTimeout(() => this.work(goal));
    else if (goal === null && !done) this.timer = setTimeout(() => this.work(), this.experiment.step < due ? 0 : 30);
    this.report(done, this.timer === null);
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
