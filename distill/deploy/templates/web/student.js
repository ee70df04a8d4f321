"use strict";
// The model: unpacked, started on one thread, asked for embeddings. Nothing of it asks the network.

function bytesOf(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// What Python has packed with gzip and base64, as numbers of a type.
async function unpacked(text, type = Uint8Array) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new type(await new Response(stream).arrayBuffer());
}

// An open model: `embed(values)` gives the unit embedding of one prepared picture.
async function opened(model, weights, runtime) {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = await unpacked(runtime.wasm);
  const glue = new Blob([await unpacked(runtime.glue)], { type: "text/javascript" });
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(glue) };
  const session = await ort.InferenceSession.create(await unpacked(weights), { executionProviders: ["wasm"] });
  const { crop } = model.preprocessing;
  const embed = async values => {
    const found = await session.run({ image: new ort.Tensor("float32", values, [1, 3, crop, crop]) });
    return found.embedding.data;
  };
  await embed(new Float32Array(3 * crop * crop));  // the first run is slower than all others
  return { embed };
}

async function banksOf(model) {
  const made = model.banks.map(async bank => new Bank(bank, await unpacked(bank.rows, Int16Array), model.embed_dim));
  const banks = await Promise.all(made);
  for (const [i, bank] of banks.entries()) {
    bank.places = placesOf(bank);
    const far = model.banks[i].far && await unpacked(model.banks[i].far);
    bank.far = far && Array.from(far.keys()).filter(place => far[place]);
  }
  return banks;
}

async function vocabularyOf(packed) {
  if (!packed) return null;
  const types = { codes: Int8Array, short: Uint8Array, scale: Float32Array, basis: Int8Array, mean: Float32Array };
  const arrays = {};
  for (const [name, type] of Object.entries(types)) arrays[name] = await unpacked(packed[name], type);
  const vocabulary = new Vocabulary(packed.words, arrays);
  vocabulary.places = placesOf(vocabulary);
  return vocabulary;
}
