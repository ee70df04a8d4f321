"use strict";
// None of these: a score that is high where a picture is one of the names asked for, and what it must reach.
// Scores are log odds, which do not saturate: of NegLabel (Jiang et al. 2024), and without words of MCM (Ming et al. 2022).

function logSum(cosines, temperature) {
  const best = cosines.reduce((most, cosine) => Math.max(most, cosine), -Infinity);
  return best / temperature + Math.log(cosines.reduce((sum, cosine) => sum + Math.exp((cosine - best) / temperature), 0));
}

// Of the names against words that are far from all of them.
function neglabelOdds(names, negatives, temperature) {
  return logSum(names, temperature) - logSum(negatives, temperature);
}

// Of the largest probability among the names: infinite with one name.
function mcmOdds(names, temperature) {
  const ordered = Array.from(names).sort((a, b) => b - a);
  return ordered.length === 1 ? Infinity : ordered[0] / temperature - logSum(ordered.slice(1), temperature);
}

// The places of the `count` words that are farthest from the nearest of some rows.
function farFrom(rows, vocabulary, count) {
  const nearest = new Float32Array(vocabulary.labels.length).fill(-2);
  for (const row of rows) {
    vocabulary.cosines(row).forEach((cosine, i) => { if (cosine > nearest[i]) nearest[i] = cosine; });
  }
  return largest(nearest.map(cosine => -cosine), count);
}

// What must be reached with so many names: between two thresholds that were set, by the logarithm of the number.
function leastOdds(thresholds, names) {
  const above = thresholds.findIndex(one => one.names >= names);
  if (above === 0) return thresholds[0].least;
  if (above < 0) return thresholds.at(-1).least;
  const [low, high] = [thresholds[above - 1], thresholds[above]];
  const share = Math.log(names / low.names) / Math.log(high.names / low.names);
  return low.least + share * (high.least - low.least);
}

// What says of cosines to the names, and to all words, whether a picture is none of these names; null where nothing can
// say so: of one name without other words, or of as many as there are words. `far` are the words far from the names, if known.
function rejecter(reject, rows, vocabulary, far) {
  if (!reject) return null;
  const least = leastOdds(reject.thresholds, rows.length), { temperature } = reject;
  if (reject.score === "mcm") return rows.length > 1 ? names => mcmOdds(names, temperature) < least : null;
  const words = vocabulary.labels.length, count = Math.min(Math.round(reject.far * words), words - rows.length);
  if (count < 1) return null;
  const negatives = far ?? farFrom(rows, vocabulary, count);
  return (names, words) => neglabelOdds(names, negatives.map(place => words[place]), temperature) < least;
}
