"use strict";

// Computes the networks that the page can read: ConvNets in float32 on images of 8x8 pixels.

const SIDE = 8;
const CLASSES = 10;

// Returns name and shape of every array of a network, sorted by name, or refuses it.
function arraysOf(network) {
  const family = network?.family ?? "none";
  check(family === "ConvNet", `holds a network of the family ${family}; this page runs ConvNet`);
  checkKeys(
    network,
    ["family", "classes", "biases", "dtype", "image_shape", "stages", "hidden"],
    "the network"
  );
  const { dtype, stages, hidden, image_shape: shape, classes } = network;
  check(dtype === "float32", `computes in ${dtype}; this page computes in float32`);
  check(`${shape}` === `${SIDE},${SIDE},1`, `takes images of [${shape}]; this page draws [8,8,1]`);
  check(classes === CLASSES, `has ${classes} classes; this page shows ${CLASSES}`);
  const sizes = (list, least, most) =>
    Array.isArray(list) &&
    isWhole(list.length, least, most) &&
    list.every((size) => isWhole(size, 1, 65536));
  // Each stage halves the image, so three of them leave one pixel.
  check(sizes(stages, 1, 3) && sizes(hidden, 0, 64), "has no sizes of layers");
  const arrays = layersOf(network).flatMap(({ name, shape }) => [
    ...(network.biases ? [{ name: `${name}/bias`, shape: shape.slice(-1) }] : []),
    { name: `${name}/kernel`, shape },
  ]);
  return arrays.sort((one, other) => (one.name < other.name ? -1 : 1));
}

// Returns the layers of a ConvNet in the order in which they are applied.
function layersOf({ stages, hidden, classes }) {
  const layers = [];
  let channels = 1;
  for (const size of stages) {
    for (const pool of [false, true]) {
      const name = `Conv_${layers.length}`;
      layers.push({ name, shape: [3, 3, channels, size], pool });
      channels = size;
    }
  }
  let inputs = (SIDE >> stages.length) ** 2 * channels;
  for (const [i, outputs] of [...hidden, classes].entries()) {
    layers.push({ name: `Dense_${i}`, shape: [inputs, outputs], last: i === hidden.length });
    inputs = outputs;
  }
  return layers;
}

// Adds `value` times row `row` of a kernel with rows of `size` numbers.
function addRow(sums, start, kernel, row, size, value) {
  for (let j = 0, k = row * size; j < size; j++, k++) sums[start + j] += value * kernel[k];
}

function convolve(image, side, kernel, [, , channels, filters], bias) {
  const sums = new Float32Array(side * side * filters);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const out = (y * side + x) * filters;
      if (bias) sums.set(bias, out);
      for (let tap = 0; tap < 9; tap++) {
        const [row, column] = [y + Math.floor(tap / 3) - 1, x + (tap % 3) - 1];
        if (row < 0 || column < 0 || row >= side || column >= side) continue;
        for (let c = 0; c < channels; c++) {
          const value = image[(row * side + column) * channels + c];
          if (value) addRow(sums, out, kernel, tap * channels + c, filters, value);
        }
      }
    }
  }
  return sums;
}

function connect(inputs, kernel, [, outputs], bias) {
  const sums = new Float32Array(outputs);
  if (bias) sums.set(bias);
  inputs.forEach((value, i) => value && addRow(sums, 0, kernel, i, outputs, value));
  return sums;
}

function maxPool(image, side, channels) {
  const half = side >> 1;
  const pooled = new Float32Array(half * half * channels);
  for (let i = 0; i < pooled.length; i++) {
    const [pixel, c] = [Math.floor(i / channels), i % channels];
    const corner = 2 * Math.floor(pixel / half) * side + 2 * (pixel % half);
    const four = [0, 1, side, side + 1].map((step) => image[(corner + step) * channels + c]);
    pooled[i] = Math.max(...four);
  }
  return pooled;
}

// Runs a network on an image of bytes, row by row. Returns its logits and the responses of
// the first layer, [8, 8, filters].
function run({ network, description, arrays }, image) {
  const { mean, std } = description;
  let values = Float32Array.from(image, (byte) => byte / 255);
  if (mean) values = values.map((value) => (value - mean[0]) / std[0]);
  let side = SIDE;
  let first = null;
  for (const { name, shape, pool, last } of layersOf(network)) {
    const [kernel, bias] = [arrays[`${name}/kernel`], arrays[`${name}/bias`]];
    values =
      shape.length === 4
        ? convolve(values, side, kernel, shape, bias)
        : connect(values, kernel, shape, bias);
    if (!last) values = values.map((value) => Math.max(value, 0));
    first ??= values;
    if (!pool) continue;
    values = maxPool(values, side, shape[3]);
    side >>= 1;
  }
  return { logits: values, first };
}

function softmax(logits) {
  const most = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = powers.reduce((one, other) => one + other);
  return powers.map((power) => power / sum);
}
