// Reads Prometheus' text format as far as our server writes it: {name: [{labels, value}]}.
export function parse(text) {
  const families = {};
  for (const line of text.split('\n')) {
    const m = /^([\w:]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!m || line.startsWith('#')) continue;
    const labels = {};
    for (const [, name, value] of (m[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g))
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));
    (families[m[1]] ??= []).push({ labels, value: m[3] === '+Inf' ? Infinity : Number(m[3]) });
  }
  return families;
}

export const sum = (families, name) => (families[name] ?? []).reduce((total, s) => total + s.value, 0);

// The quantile of what a histogram saw between two scrapes, straight between bounds as PromQL has it; null: nothing.
export function quantile(now, before, name, q) {
  const counts = new Map();
  for (const [families, sign] of [[now, 1], [before, -1]])
    for (const { labels, value } of families[`${name}_bucket`] ?? []) {
      const bound = labels.le === '+Inf' ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + sign * value);
    }
  const bounds = [...counts.keys()].sort((a, b) => a - b);
  const total = counts.get(Infinity) ?? 0;
  if (total <= 0) return null;
  let low = 0, below = 0;
  for (const bound of bounds) {
    const count = counts.get(bound);
    if (count >= q * total) return bound === Infinity ? low : low + (bound - low) * ((q * total - below) / (count - below || 1));
    low = bound;
    below = count;
  }
  return low;
}
