"use strict";
// The file of a picture -> what the student takes, prepared as Python prepares it: squashed by the same whole numbers.

// Weights are whole numbers with so many bits behind the point: Pillow's always, torch's at most, and at most 16 in all.
const BITS = 22, TORCH_LARGEST = 2 ** 15;
// So many rows of a picture are on a canvas at once: phones have none for a whole large one.
const BAND = 256;

// Of which pixels of a side of `size` each of the `count` pixels of the resized one is made, and how much of each.
function weightsOf(size, count, torch) {
  const scale = size / count, wide = Math.max(scale, 1), most = Math.ceil(wide) * 2 + 1;
  const first = new Int32Array(count), number = new Int32Array(count), shares = new Float64Array(count * most);
  for (let at = 0; at < count; at++) {
    const centre = (at + 0.5) * scale;
    first[at] = Math.max(Math.trunc(centre - wide + 0.5), 0);
    number[at] = Math.min(Math.trunc(centre + wide + 0.5), size) - first[at];
    const own = shares.subarray(at * most, at * most + number[at]);
    for (let i = 0; i < own.length; i++) own[i] = Math.max(1 - Math.abs((i + first[at] - centre + 0.5) * (1 / wide)), 0);
    const all = own.reduce((sum, share) => sum + share, 0);
    for (let i = 0; i < own.length; i++) own[i] /= all;
  }
  let bits = torch ? 0 : BITS;
  if (torch) {
    const top = shares.reduce((most, share) => Math.max(most, share), 0);
    while (bits < BITS && Math.trunc(0.5 + top * 2 ** (bits + 1)) < TORCH_LARGEST) bits++;
  }
  return { first, number, most, bits, weights: Int32Array.from(shares, share => Math.trunc(0.5 + share * 2 ** bits)) };
}

// A row of pixels of `step` bytes each, as RGB with as many pixels as `across` has.
function narrowed(row, across, step) {
  const { first, number, most, bits, weights } = across, half = 1 << (bits - 1);
  const narrow = new Uint8ClampedArray(first.length * 3);
  for (let x = 0; x < first.length; x++) {
    let from = first[x] * step, red = half, green = half, blue = half;
    for (let i = x * most, end = i + number[x]; i < end; i++, from += step) {
      red += row[from] * weights[i]; green += row[from + 1] * weights[i]; blue += row[from + 2] * weights[i];
    }
    narrow[3 * x] = red >> bits; narrow[3 * x + 1] = green >> bits; narrow[3 * x + 2] = blue >> bits;
  }
  return narrow;
}

// RGB [side, side, 3] of a picture, of which `rowsAt(top, count)` gives rows as RGBA.
function squashed(rowsAt, width, height, side, torch) {
  const across = weightsOf(width, side, torch), down = weightsOf(height, side, torch);
  // Each way is rounded by itself, so the order is seen: Pillow takes columns first where that saves it the most.
  const columnsFirst = !torch && height > side + 2 * Math.max(width - side, 0), step = columnsFirst ? 4 : 3;
  const length = step * (columnsFirst ? width : side);
  const sums = new Int32Array(side * length).fill(1 << (down.bits - 1));
  for (let y = 0, open = 0, band; y < height; y++) {
    if (y % BAND === 0) band = rowsAt(y, Math.min(BAND, height - y));
    let row = band.subarray((y % BAND) * width * 4, (y % BAND + 1) * width * 4);
    if (!columnsFirst) row = narrowed(row, across, 4);
    while (open < side && down.first[open] + down.number[open] <= y) open++;
    for (let at = open; at < side && down.first[at] <= y; at++) {
      const weight = down.weights[at * down.most + y - down.first[at]], to = at * length;
      for (let x = 0; x < length; x++) sums[to + x] += row[x] * weight;
    }
  }
  const short = Uint8ClampedArray.from(sums, sum => sum >> down.bits);
  if (!columnsFirst) return short;
  const result = new Uint8ClampedArray(side * side * 3);
  for (let y = 0; y < side; y++) result.set(narrowed(short.subarray(y * length, (y + 1) * length), across, 4), y * side * 3);
  return result;
}

// The middle of a squashed picture as float32 [3, crop, crop], less the mean, divided by the deviation.
function normalised(pixels, steps) {
  const { resize, crop, start, mean, std } = steps, values = new Float32Array(3 * crop * crop);
  for (let channel = 0, to = 0; channel < 3; channel++) {
    for (let y = 0; y < crop; y++) {
      for (let x = 0; x < crop; x++, to++) {
        const value = pixels[((start + y) * resize + start + x) * 3 + channel];
        values[to] = (value - mean[channel] * 255) / (std[channel] * 255);
      }
    }
  }
  return values;
}

// A picture's file as the browser decodes it: turned as its EXIF says, if that is wanted, its colours as they are in the file.
async function decoded(file, steps) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: steps.exif ? "from-image" : "none", colorSpaceConversion: "none", premultiplyAlpha: "none",
    });
  } catch {
    throw new Error(`${file.name || "what was given"} is no picture that this browser can read`);
  }
  if (bitmap.width * bitmap.height > steps.max_pixels) {
    throw new Error(`the picture has ${bitmap.width} × ${bitmap.height} pixels, more than ${steps.max_pixels}`);
  }
  return bitmap;
}

// What the student takes of a decoded picture.
function prepared(bitmap, steps) {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = Math.min(BAND, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rowsAt = (top, count) => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, -top);
    return context.getImageData(0, 0, bitmap.width, count).data;
  };
  const pixels = squashed(rowsAt, bitmap.width, bitmap.height, steps.resize, steps.decoder === "torchvision");
  return normalised(pixels, steps);
}
