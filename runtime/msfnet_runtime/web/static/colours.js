// Colours depth with a table from counts to RGBA, rebuilt when the range or the map changes.

import { FARTHEST, INVALID } from "./frame.js";

const OUTER_PERCENT = 2;
const BLACK = 0xff000000;

export class Palette {
  #tables = {};
  #colours = new Uint32Array(FARTHEST + 1);
  #made = "";

  constructor() {
    this.choice = { map: "turbo", scale: "log", near: 1, far: 10 };
  }

  // tables: name -> base64 of 256 RGB triples, nearest first.
  setTables(tables) {
    for (const [name, text] of Object.entries(tables)) {
      const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
      this.#tables[name] = Uint32Array.from({ length: 256 }, (_, i) =>
        (0xff000000 | (bytes[3 * i + 2] << 16) | (bytes[3 * i + 1] << 8) | bytes[3 * i]) >>> 0);
    }
    this.#made = "";
  }

  get names() {
    return Object.keys(this.#tables);
  }

  // Position of a depth on the scale, 0 (near) to 1 (far).
  place(metres) {
    const { near, far, scale } = this.choice;
    const at = scale === "log"
      ? Math.log(metres / near) / Math.log(far / near)
      : (metres - near) / (far - near);
    return Math.min(Math.max(at, 0), 1);
  }

  // Fill an ImageData from counts.
  paint(counts, perMetre, image) {
    this.#make(perMetre);
    const pixels = new Uint32Array(image.data.buffer);
    const colours = this.#colours;
    for (let i = 0; i < counts.length; i++) pixels[i] = colours[counts[i]];
  }

  // Draw the scale, near on the left, into a canvas of 256 x 1 pixels.
  paintBar(canvas) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(256, 1);
    const table = this.#tables[this.choice.map];
    if (table) new Uint32Array(image.data.buffer).set(table);
    context.putImageData(image, 0, 0);
  }

  // Round depths within the range: 1, 2 and 5 times powers of ten; tenths of a linear one.
  marks() {
    const { near, far, scale } = this.choice;
    const marks = [];
    if (scale === "linear") {
      const step = niceStep((far - near) / 6);
      for (let i = Math.ceil(near / step); i * step <= far; i++) marks.push(i * step);
      return marks.map((mark) => Number(mark.toPrecision(6)));
    }
    for (let ten = Math.floor(Math.log10(near)); 10 ** ten <= far; ten++) {
      for (const one of [1, 2, 5]) marks.push(Number((one * 10 ** ten).toPrecision(6)));
    }
    const inside = marks.filter((mark) => mark >= near && mark <= far);
    return inside.length > 1 ? inside : [near, far];
  }

  #make(perMetre) {
    const made = JSON.stringify([this.choice, perMetre]);
    const table = this.#tables[this.choice.map];
    if (made === this.#made || !table) return;
    for (let count = 1; count <= FARTHEST; count++) {
      this.#colours[count] = table[Math.round(255 * this.place(count / perMetre))];
    }
    this.#colours[INVALID] = BLACK;
    this.#made = made;
  }
}

// The range without the outer 2 % of the valid pixels, metres; null without valid pixels.
export function usualRange(counts, perMetre) {
  const histogram = new Uint32Array(FARTHEST + 1);
  for (let i = 0; i < counts.length; i += 7) histogram[counts[i]]++;
  const valid = Math.ceil(counts.length / 7) - histogram[INVALID];
  if (!valid) return null;
  const outer = (valid * OUTER_PERCENT) / 100;
  const near = quantile(histogram, outer) / perMetre;
  const far = quantile(histogram, valid - outer) / perMetre;
  return [near, Math.max(far, near * 1.05)];
}

function quantile(histogram, wanted) {
  let count = INVALID + 1;
  for (let sum = histogram[count]; sum < wanted && count < FARTHEST; sum += histogram[++count]);
  return count;
}

export function niceStep(rough) {
  const ten = 10 ** Math.floor(Math.log10(rough));
  return ten * [1, 2, 5, 10].find((step) => step * ten >= rough * 0.999);
}
