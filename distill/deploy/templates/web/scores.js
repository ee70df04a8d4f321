"use strict";
// Embeddings and texts -> numbers: cosines, probabilities, and how much an image is like what was asked for.

function dot(one, other, from = 0) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += one[i] * other[from + i];
  return sum;
}

function softmax(cosines, temperature) {
  const best = Math.max(...cosines);
  const shares = Array.from(cosines, cosine => Math.exp((cosine - best) / temperature));
  const all = shares.reduce((sum, share) => sum + share, 0);
  return shares.map(share => share / all);
}

// The places of the largest `count` numbers, largest first.
function largest(numbers, count) {
  return Array.from(numbers.keys()).sort((a, b) => numbers[b] - numbers[a] || a - b).slice(0, count);
}

// A text bank of the model: whole numbers, of which `scale` makes unit rows of `size` numbers.
class Bank {
  constructor({ name, labels, classes, texts, scale }, numbers, size) {
    Object.assign(this, { name, labels, classes, texts, scale, numbers, size });
  }
  row(place) {
    return Float32Array.from(this.numbers.subarray(place * this.size, (place + 1) * this.size), n => n * this.scale);
  }
}

// Words and their rows: codes * scale @ basis + mean, the codes of the last axes in 4 bits, two to a byte.
class Vocabulary {
  constructor(words, { codes, short, scale, basis, mean }) {
    Object.assign(this, { labels: words, classes: [], texts: [], scale, basis, mean });
    this.size = mean.length;
    this.components = scale.length;
    this.codes = new Int8Array(words.length * scale.length);
    const long = codes.length / words.length, pairs = short.length / words.length;
    for (let i = 0, to = 0; i < words.length; i++) {
      for (let k = 0; k < long; k++) this.codes[to++] = codes[i * long + k];
      for (let k = 0; k < pairs; k++) {
        const pair = short[i * pairs + k];
        this.codes[to++] = (pair & 15) - 8;
        this.codes[to++] = (pair >> 4) - 8;
      }
    }
  }
  row(place) {
    const row = Float64Array.from(this.mean);
    for (let k = 0; k < this.components; k++) {
      const share = this.codes[place * this.components + k] * this.scale[k];
      for (let i = 0; i < this.size; i++) row[i] += share * this.basis[k * this.size + i];
    }
    return Float32Array.from(row);
  }
  // The cosine of every word with a unit row: without making any of its rows.
  cosines(row) {
    const share = dot(row, this.mean), parts = new Float32Array(this.components);
    for (let k = 0; k < this.components; k++) parts[k] = dot(row, this.basis, k * this.size) * this.scale[k];
    const found = new Float32Array(this.labels.length);
    for (let i = 0; i < found.length; i++) {
      found[i] = share + dot(parts, this.codes, i * this.components);
    }
    return found;
  }
}
