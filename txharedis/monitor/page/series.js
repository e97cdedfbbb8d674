/* The samples of the last minutes: kept, merged, and what can be read out of them. */

export const WINDOW = 300;

/**
 * The samples of both, each time once, oldest first, none older than the window.
 * A monitor that has restarted knows nothing of what was before: it is kept. What is later than the
 * newest that is told is of a clock that was set back since: it would keep all others out.
 */
export function mergeSamples(seen, told) {
  const samples = new Map([...seen, ...told].map((sample) => [sample.at, sample]));
  const sorted = [...samples.values()].sort((a, b) => a.at - b.at);
  const newest = (told.length ? told : sorted).at(-1)?.at ?? 0;
  return sorted.filter(({ at }) => at > newest - WINDOW - 1 && at <= newest);
}

/** The changes of the master: [{at, old, new}]. */
export function masterChanges(samples) {
  const changes = [];
  let master = null;
  for (const sample of samples) {
    if (!sample.master) continue;
    if (master && sample.master !== master) {
      changes.push({ at: sample.at, old: master, new: sample.master });
    }
    master = sample.master;
  }
  return changes;
}

/** The times without a master: [[from, to]]. */
export function timesWithout(samples) {
  const spans = [];
  let from = null;
  for (const sample of samples) {
    if (sample.master) {
      if (from !== null) spans.push([from, sample.at]);
      from = null;
    } else if (from === null) {
      from = sample.at;
    }
  }
  if (from !== null) spans.push([from, samples[samples.length - 1].at]);
  return spans;
}

/** The pieces of a line: it is broken where a value is unknown, or a sample missing. */
export function pieces(samples, valueOf, period) {
  const found = [];
  let piece = null;
  let before = null;
  for (const sample of samples) {
    const value = valueOf(sample);
    if (before !== null && sample.at - before > 3 * period) piece = null;
    before = sample.at;
    if (value === null || value === undefined) {
      piece = null;
    } else {
      if (!piece) found.push((piece = []));
      piece.push([sample.at, value]);
    }
  }
  return found;
}

/** {least, most, mean, last} of the known values, null without any. */
export function figures(samples, valueOf) {
  const values = samples.map(valueOf).filter((value) => value !== null && value !== undefined);
  if (!values.length) return null;
  return {
    least: Math.min(...values),
    most: Math.max(...values),
    mean: values.reduce((sum, value) => sum + value, 0) / values.length,
    last: valueOf(samples[samples.length - 1]) ?? null,
  };
}

/** The sample nearest to a time; undefined without any. */
export function nearest(samples, at) {
  let best;
  for (const sample of samples) {
    if (!best || Math.abs(sample.at - at) < Math.abs(best.at - at)) best = sample;
  }
  return best;
}
