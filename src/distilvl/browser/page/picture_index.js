// The pictures and their embeddings; the nearest are found by comparing with all of them.

import { load } from "./text_tower.js";

export class PictureIndex {
  static async open(dim) {
    const [index, halves] = await Promise.all([
      load("index.json").then((response) => response.json()),
      load("vectors.bin").then((response) => response.arrayBuffer()),
    ]);
    return new PictureIndex(index.pictures, singles(halves), dim);
  }

  constructor(all, embeddings, dim) {
    if (embeddings.length !== all.length * dim) throw new Error("vectors.bin does not fit index.json");
    Object.assign(this, { all, embeddings, dim });
    this.places = new Map(all.map((picture, place) => [picture.id, place]));
  }

  has(id) {
    return this.places.has(id);
  }

  get(id) {
    return this.all[this.places.get(id)];
  }

  embedding(id) {
    const start = this.places.get(id) * this.dim;
    return this.embeddings.subarray(start, start + this.dim);
  }

  // The `most` pictures with the largest cosine to a query, best first; of equal ones the first in the index.
  nearest(query, most) {
    const scores = new Float32Array(this.all.length);
    for (let place = 0, k = 0; place < scores.length; place += 1) {
      let sum = 0;
      for (let column = 0; column < this.dim; column += 1, k += 1) sum += this.embeddings[k] * query[column];
      scores[place] = sum;
    }
    const order = Uint32Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
    return Array.from(order.subarray(0, most), (place) => ({
      ...this.all[place],
      score: scores[place],
      thumbnail: `thumbnails/${this.all[place].id}.jpg`,
    }));
  }
}

// Float16 (little-endian) to Float32, for browsers without Float16Array. Embeddings have no infinities.
function singles(buffer) {
  const view = new DataView(buffer);
  const found = new Float32Array(buffer.byteLength / 2);
  for (let k = 0; k < found.length; k += 1) {
    const bits = view.getUint16(2 * k, true);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    found[k] = bits & 0x8000 ? -size : size;
  }
  return found;
}
