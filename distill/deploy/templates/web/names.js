"use strict";
// What was typed -> classes of the model's texts, found as the command finds them.

const folded = name => name.replaceAll("_", " ").split(/\s+/).filter(Boolean).join(" ").toLowerCase();

// The place of each label, class and text of a bank by its folded name; the first of what has several.
function placesOf(bank) {
  const places = new Map();
  for (const column of [bank.labels, bank.classes, bank.texts]) {
    column.forEach((name, place) => { if (name && !places.has(folded(name))) places.set(folded(name), place); });
  }
  return places;
}

// Names as they were typed: one a line or between commas, those in double quotes with commas of their own.
function namesIn(text, banks) {
  return text.split("\n").flatMap(line => {
    if (banks.some(bank => bank.places.has(folded(line)))) return [line.trim()];
    const parts = line.match(/\s*("(?:[^"]|"")*"|[^,]*)\s*(?:,|$)/g) ?? [];
    return parts.map(part => part.trim().replace(/,$/, "").trim())
      .map(part => /^".*"$/.test(part) ? part.slice(1, -1).replaceAll('""', '"').trim() : part).filter(Boolean);
  });
}

// Where a name is found first: [bank, place]; null where no bank has it.
function find(name, banks) {
  const bank = banks.find(one => one.places.has(folded(name)));
  return bank ? [bank, bank.places.get(folded(name))] : null;
}

// The names nearest to one that is not there, by the pairs of letters that they share.
function nearest(name, banks, count = 3) {
  const pairs = word => {
    const padded = ` ${folded(word)} `, found = new Map();
    for (let i = 1; i < padded.length; i++) {
      const pair = padded.slice(i - 1, i + 1);
      found.set(pair, (found.get(pair) ?? 0) + 1);
    }
    return found;
  };
  const wanted = pairs(name), length = folded(name).length + 1, found = new Map();
  for (const label of banks.flatMap(bank => bank.labels)) {
    const other = folded(label);
    if (found.has(other) || other.length + 1 > 3 * length || length > 3 * (other.length + 1)) continue;
    let shared = 0;
    for (const [pair, number] of pairs(label)) shared += Math.min(number, wanted.get(pair) ?? 0);
    const alike = 2 * shared / (length + other.length + 1);
    if (alike >= 0.5) found.set(other, { label, alike });
  }
  return [...found.values()].sort((a, b) => b.alike - a.alike).slice(0, count).map(one => one.label);
}

// The classes asked for: [{label, row}], or what is wrong with a name and what was meant.
function asked(text, banks) {
  const classes = [], seen = new Set();
  for (const name of namesIn(text, banks)) {
    const found = find(name, banks);
    if (!found) return { wrong: `“${name}” is not known`, name, near: nearest(name, banks) };
    const [bank, place] = found, label = bank.labels[place];
    if (seen.has(label)) return { wrong: `“${label}” is there twice`, name, near: [] };
    seen.add(label);
    classes.push({ label, row: bank.row(place) });
  }
  return { classes };
}
