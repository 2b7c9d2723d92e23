// The text tower: from words to their embedding, in the page.

import * as ort from "./npm/onnxruntime.js";
import { Tokenizer } from "./npm/tokenizers.js";

const here = (name) => new URL(name, import.meta.url).href;

export async function load(name) {
  const response = await fetch(here(name));
  if (!response.ok) throw new Error(`${name}: status ${response.status}`);
  return response;
}

export class TextTower {
  static async open() {
    ort.env.wasm.wasmPaths = { wasm: here("npm/onnxruntime.wasm") };
    ort.env.wasm.numThreads = 1; // more need headers that a plain web server does not send
    const [about, vocabulary, graph] = await Promise.all([
      load("model.json").then((response) => response.json()),
      load("tokenizer.json").then((response) => response.json()),
      load("text.onnx").then((response) => response.arrayBuffer()),
    ]);
    const session = await ort.InferenceSession.create(new Uint8Array(graph), { executionProviders: ["wasm"] });
    return new TextTower(about, new Tokenizer(vocabulary, {}), session);
  }

  constructor(about, tokenizer, session) {
    Object.assign(this, { about, tokenizer, session });
    this.turn = Promise.resolve();
  }

  // The library does not cut long texts: the words are cut, the special tokens around them stay.
  ids(text) {
    const whole = this.tokenizer.encode(text || " ").ids; // of nothing the library gives nothing, not even marks
    const most = this.about.max_length;
    if (whole.length <= most) return whole;
    const bare = this.tokenizer.encode(text || " ", { add_special_tokens: false }).ids;
    const special = whole.length - bare.length;
    let before = 0;
    while (before < special && !bare.every((id, k) => whole[before + k] === id)) before += 1;
    return [...whole.slice(0, before), ...bare.slice(0, most - special), ...whole.slice(before + bare.length)];
  }

  // The L2-normalised embedding of a text. A session takes one call at a time.
  encode(text) {
    const run = async () => {
      const ids = this.ids(text);
      const tensor = (numbers) => new ort.Tensor("int64", BigInt64Array.from(numbers, BigInt), [1, ids.length]);
      const found = await this.session.run({ input_ids: tensor(ids), attention_mask: tensor(ids.map(() => 1)) });
      const embedding = found.features.data;
      const norm = Math.hypot(...embedding);
      return embedding.map((value) => value / norm);
    };
    const embedding = this.turn.then(run);
    this.turn = embedding.catch(() => {});
    return embedding;
  }
}
