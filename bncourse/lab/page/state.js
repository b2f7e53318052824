// The lab's state: a preset and what was changed of it. It fits into an address such as #lab-first&a.depth=20&seed=3.

class State {
  constructor(data) {
    Object.assign(this, { settings: data.settings, presets: data.presets });
  }

  names(of) {
    return Object.keys(this.settings).filter((name) => this.settings[name].of === of);
  }

  // All values of a preset.
  ofPreset(id) {
    const { base = {}, a = {}, b = {}, both = {} } = this.presets[id];
    const fill = (of, ...changes) =>
      Object.assign(Object.fromEntries(this.names(of).map((name) => [name, this.settings[name].start])), ...changes);
    return { id, a: fill("network", base, a), b: fill("network", base, b), both: fill("both", both) };
  }

  // The values that differ from the preset's, as [side, name, value].
  changes(state) {
    const before = this.ofPreset(state.id);
    return ["a", "b", "both"].flatMap((side) =>
      Object.keys(state[side])
        .filter((name) => state[side][name] !== before[side][name])
        .map((name) => [side, name, state[side][name]]),
    );
  }

  // The same in words, without the seeds: another seed is another run of the same experiment.
  inWords(state) {
    const before = this.ofPreset(state.id);
    return this.changes(state)
      .filter(([, name]) => name !== "seed" && name !== "seeds")
      .map(([side, name, value]) => {
        const setting = this.settings[name];
        const of = side === "both" ? "" : `${side.toUpperCase()}’s `;
        return `${of}${setting.label} ${shown(setting, value)} instead of ${shown(setting, before[side][name])}`;
      })
      .join("; ");
  }

  // Whether a setting changes anything for network "a" or "b", or for any of them ("both").
  hasEffect(state, side, name) {
    const idle = Object.entries(this.settings[name].idle ?? {});
    const sides = side === "both" ? ["a", "b"] : [side];
    return sides.some((one) => !idle.some(([other, values]) => values.includes(state[one][other])));
  }

  toAddress(state) {
    return (
      `#lab-${state.id}` +
      this.changes(state)
        .map(([side, name, value]) => `&${side === "both" ? "" : side + "."}${name}=${encodeURIComponent(value)}`)
        .join("")
    );
  }

  // A state from an address, and sentences about what in it could not be taken; null if it is not the lab's.
  fromAddress(address) {
    if (!address.startsWith("#lab-")) return null;
    const [id, ...changes] = address.slice(5).split("&");
    const complaints = [];
    if (!Object.hasOwn(this.presets, id)) complaints.push(`There is no preset “${id.slice(0, 40)}”.`);
    const state = this.ofPreset(Object.hasOwn(this.presets, id) ? id : Object.keys(this.presets)[0]);
    for (const change of changes) {
      const [, side = "both", name, text] = change.match(/^(?:([ab])\.)?(\w+)=(.*)$/) ?? [];
      const setting = Object.hasOwn(this.settings, name ?? "") ? this.settings[name] : null;
      if (!setting || (side === "both") !== (setting.of === "both")) {
        complaints.push(`The address has “${change.slice(0, 40)}”, which is not a setting.`);
        continue;
      }
      const asked = decode(text);
      const value = nearest(setting.choices, asked);
      if (String(value) !== asked && (asked === "" || Number(asked) !== value))
        complaints.push(`${setting.label} cannot be “${asked.slice(0, 40)}”: took ${value}.`);
      state[side][name] = value;
    }
    return { state, complaints };
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// The choice that a text names, the nearest number, or the first choice.
function nearest(choices, text) {
  const same = choices.find((choice) => String(choice) === text);
  if (same !== undefined) return same;
  const number = Number(text);
  if (typeof choices[0] !== "number" || Number.isNaN(number) || text === "") return choices[0];
  return choices.reduce((best, choice) => (Math.abs(choice - number) < Math.abs(best - number) ? choice : best));
}

const MOST_PRODUCTS = 200e6; // in one step of a network: a fifth of a second or so
const LOOK = 1200; // a look at a network takes as many products as so many images, forward

// Why a network is not trained, or null. On the page's own thread a look must not freeze the page either.
function tooLarge({ depth, width, batch, accumulate }, name, onPage) {
  const most = onPage ? MOST_PRODUCTS / 2 : MOST_PRODUCTS;
  const images = 3 * batch * accumulate; // forward, and twice backward
  const count = Math.max(images, onPage ? LOOK : 0) * (64 * width + (depth - 1) * width * width + 10 * width);
  if (count <= most) return null;
  const million = (number) => `${Math.round(number / 1e6)} million`;
  return `A step of network ${name} takes ${million(count)} multiplications, and the lab stops at ${million(most)}: choose fewer layers or units, or smaller batches.`;
}
