// The pictures and their rows; the nearest are found by comparing with all of them.

import { load } from "./model.js";

export class Pictures {
  static async open(width) {
    const [index, halves] = await Promise.all([
      load("index.json").then((response) => response.json()),
      load("vectors.bin").then((response) => response.arrayBuffer()),
    ]);
    return new Pictures(index.pictures, singles(halves), width);
  }

  constructor(all, rows, width) {
    if (rows.length !== all.length * width) throw new Error("vectors.bin does not fit index.json");
    Object.assign(this, { all, rows, width });
    this.places = new Map(all.map((picture, place) => [picture.id, place]));
  }

  has(id) {
    return this.places.has(id);
  }

  get(id) {
    return this.all[this.places.get(id)];
  }

  row(id) {
    const start = this.places.get(id) * this.width;
    return this.rows.subarray(start, start + this.width);
  }

  // The `most` pictures with the largest cosine to a unit row, best first; of equal ones the first in the index.
  nearest(query, most) {
    const scores = new Float32Array(this.all.length);
    for (let place = 0, k = 0; place < scores.length; place += 1) {
      let sum = 0;
      for (let column = 0; column < this.width; column += 1, k += 1) sum += this.rows[k] * query[column];
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

// Float16 (little-endian) to Float32, for browsers without Float16Array. Rows have no infinities.
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
