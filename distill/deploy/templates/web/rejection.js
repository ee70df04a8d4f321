"use strict";
// None of these: a score that is high where a picture is one of the names asked for, and what it must reach.

// MCM (Ming et al. 2022): the largest probability among the names.
function mcmScore(names, temperature) {
  return Math.max(...softmax(names, temperature));
}

// NegLabel (Jiang et al. 2024): the share of the names beside words that are far from all of them.
function neglabelScore(names, negatives, temperature) {
  const best = [...names, ...negatives].reduce((most, cosine) => Math.max(most, cosine), -1);
  const sum = cosines => cosines.reduce((all, cosine) => all + Math.exp((cosine - best) / temperature), 0);
  const own = sum(names);
  return own / (own + sum(negatives));
}

// The places of the `count` words that are farthest from the nearest of some rows.
function farFrom(rows, vocabulary, count) {
  const nearest = new Float32Array(vocabulary.labels.length).fill(-2);
  for (const row of rows) {
    vocabulary.cosines(row).forEach((cosine, i) => { if (cosine > nearest[i]) nearest[i] = cosine; });
  }
  return largest(nearest.map(cosine => -cosine), count);
}

// What says of cosines to the names, and to all words, whether a picture is none of these names.
function rejecter(reject, rows, vocabulary) {
  if (!reject) return () => false;
  const far = reject.score === "neglabel" ? farFrom(rows, vocabulary, reject.negatives) : [];
  const scores = {
    cosine: names => Math.max(...names),
    mcm: names => mcmScore(names, reject.temperature),
    neglabel: (names, words) => neglabelScore(names, far.map(place => words[place]), reject.temperature),
  };
  return (names, words) => scores[reject.score](names, words) < reject.threshold;
}
