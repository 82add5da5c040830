"use strict";

// The view of a picture that the network is fed, in Pillow's own integers: shorter side to 8/7 of
// the view's by antialiased Lanczos, then the central square. A canvas would filter otherwise.

const PRECISION_BITS = 22; // of a weight
const HALF = 1 << (PRECISION_BITS - 1);
const GAP = 6; // a picture stays at least so many times larger than what Lanczos makes of it

/** `sizePx` x `sizePx` pixels, red, green, blue, of an ImageData, whose alpha is not looked at. */
function squareView(picture, sizePx) {
  const shortPx = roundEven((sizePx * 8) / 7);
  const scale = shortPx / Math.min(picture.width, picture.height);
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(shortPx, roundEven(side * scale)));
  const factor = Math.max(1, Math.floor(1 / scale / GAP));
  const source = factor > 1 ? reduced(picture, factor) : picture;
  const across = axisWeights(picture.width / factor, source.width, width, sizePx);
  const down = axisWeights(picture.height / factor, source.height, height, sizePx);
  const top = down[0].start;
  const rows = Math.max(...down.map(({ start, weights }) => start + weights.length)) - top;
  const wide = new Uint8ClampedArray(rows * sizePx * 3);
  const view = new Uint8ClampedArray(sizePx * sizePx * 3);
  const line = source.width * 4;
  convolve(source.data.subarray(top * line), across, rows, { step: 4, line }, wide, { step: 3, line: sizePx * 3 });
  for (const kept of down) kept.start -= top;
  convolve(wide, down, sizePx, { step: sizePx * 3, line: 3 }, view, { step: sizePx * 3, line: 3 });
  return new Uint8Array(view.buffer);
}

/** To the nearest whole number, of two the even one: as Python rounds. */
function roundEven(number) {
  const floor = Math.floor(number);
  const rest = number - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}

/** Means of squares of pixels, which leave little to do for pictures that are far too large. */
function reduced({ width, height, data }, factor) {
  const [across, down] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const means = new Uint8ClampedArray(across * down * 4);
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      const [bottom, right] = [Math.min(height, (y + 1) * factor), Math.min(width, (x + 1) * factor)];
      let [red, green, blue] = [0, 0, 0];
      for (let row = y * factor; row < bottom; row++) {
        const end = (row * width + right) * 4;
        for (let place = (row * width + x * factor) * 4; place < end; place += 4) {
          red += data[place];
          green += data[place + 1];
          blue += data[place + 2];
        }
      }
      const pixels = (bottom - y * factor) * (right - x * factor);
      means.set([red / pixels, green / pixels, blue / pixels], (y * across + x) * 4);
    }
  }
  return { width: across, height: down, data: means };
}

/**
 * Which pixels of a side the central `count` of `length` pixels show, and with which weights.
 * side: the source's, a broken number where the last of its `whole` pixels counts in part.
 */
function axisWeights(side, whole, length, count) {
  const scale = side / length;
  const wide = Math.max(scale, 1);
  const first = roundEven((length - count) / 2);
  return Array.from({ length: count }, (_, i) => {
    const centre = (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - 3 * wide + 0.5));
    const end = Math.min(whole, Math.trunc(centre + 3 * wide + 0.5));
    const values = Array.from({ length: end - start }, (_, x) => lanczos((start + x - centre + 0.5) / wide));
    const sum = values.reduce((total, value) => total + value, 0);
    const scaled = values.map((value) => (value / sum) * 2 ** PRECISION_BITS);
    return { start, weights: Int32Array.from(scaled, (value) => Math.trunc(value + 0.5 * Math.sign(value))) };
  });
}

function lanczos(x) {
  if (x === 0) return 1;
  const turn = Math.PI * x;
  return Math.abs(x) < 3 ? (Math.sin(turn) / turn) * (Math.sin(turn / 3) / (turn / 3)) : 0;
}

/** Filter `lines` lines of pixels; a pixel, and a line, begin so many bytes behind the one before. */
function convolve(source, axis, lines, from, target, to) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < axis.length; i++) {
      const { start, weights } = axis[i];
      let [red, green, blue] = [HALF, HALF, HALF];
      let place = line * from.line + start * from.step;
      for (let x = 0; x < weights.length; x++, place += from.step) {
        red += source[place] * weights[x];
        green += source[place + 1] * weights[x];
        blue += source[place + 2] * weights[x];
      }
      const at = line * to.line + i * to.step;
      target[at] = red >> PRECISION_BITS;
      target[at + 1] = green >> PRECISION_BITS;
      target[at + 2] = blue >> PRECISION_BITS;
    }
  }
}
