"use strict";

// Reads an artefact of format 1 as docs/artefact.md describes it, and initialises its
// weights again. It needs no page, so that Node can run it too.

const MAGIC = [0x89, 0x41, 0x53, 0x4c, 0x50, 0x0d, 0x0a, 0x1a];
const MOST_BYTES = 2 ** 29;
const MOST_HEADER_BYTES = 2 ** 20;
const MOST_NUMBERS = 2 ** 26;
// The highest bit of the random word of a negative weight.
const NEGATIVE = { signed_constant: 0, kaiming_constant: 1 };

// Refusal of a file; its message is one line for people.
class Refused extends Error {}

function check(condition, message) {
  if (!condition) throw new Refused(message);
}

function checkKeys(object, keys, where) {
  check(object !== null && typeof object === "object", `${where} is no JSON object`);
  const found = Object.keys(object).sort().join(", ");
  const expected = [...keys].sort().join(", ");
  check(found === expected, `${where} has the keys ${found}, not ${expected}`);
}

function isWhole(value, least, most) {
  return Number.isInteger(value) && value >= least && value <= most;
}

// Returns the SHA-256 of bytes as 64 hexadecimal digits. The browser's own is missing
// where a page comes over plain HTTP.
function sha256(bytes) {
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length * 8);
  const primes = [];
  for (let next = 2; primes.length < 64; next++) {
    if (primes.every((prime) => next % prime)) primes.push(next);
  }
  const constants = Int32Array.from(primes, (p) => (Math.cbrt(p) % 1) * 2 ** 32);
  const state = Int32Array.from(primes.slice(0, 8), (p) => (Math.sqrt(p) % 1) * 2 ** 32);
  const words = new Int32Array(64);
  const turn = (word, by) => (word >>> by) | (word << (32 - by));
  for (let start = 0; start < padded.length; start += 64) {
    for (let i = 0; i < 16; i++) words[i] = view.getInt32(start + 4 * i);
    for (let i = 16; i < 64; i++) {
      const [early, late] = [words[i - 15], words[i - 2]];
      const first = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
      const second = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
      words[i] = words[i - 16] + first + words[i - 7] + second;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const mixed = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
      const one = (h + mixed + ((e & f) ^ (~e & g)) + constants[i] + words[i]) | 0;
      const other = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const two = (other + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + one) | 0;
      d = c;
      c = b;
      b = a;
      a = (one + two) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => (state[i] += word));
  }
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

// Returns the first `count` random words of a key: Threefry-2x32 with 20 rounds.
function randomWords([first, second], count) {
  const keys = [first | 0, second | 0, first ^ second ^ 0x1bd11bda];
  const turns = [13, 15, 26, 6, 17, 29, 16, 24];
  const words = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    let left = keys[0];
    let right = (i + keys[1]) | 0;
    for (let round = 0; round < 20; round++) {
      const by = turns[round % 8];
      left = (left + right) | 0;
      right = ((right << by) | (right >>> (32 - by))) ^ left;
      if (round % 4 === 3) {
        const group = (round + 1) / 4;
        left = (left + keys[group % 3]) | 0;
        right = (right + keys[(group + 1) % 3] + group) | 0;
      }
    }
    words[i] = left ^ right;
  }
  return words;
}

// Returns the content of a deflated segment (zlib), which must have `size` bytes.
async function inflate(stored, size, where) {
  const content = new Uint8Array(size);
  const format = new DecompressionStream("deflate");
  const reader = new Blob([stored]).stream().pipeThrough(format).getReader();
  let filled = 0;
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new Refused(`${where} cannot be inflated`);
    });
    if (done) break;
    check(filled + value.length <= size, `${where} inflates to over ${size} bytes`);
    content.set(value, filled);
    filled += value.length;
  }
  check(filled === size, `${where} inflates to ${filled} bytes, not ${size}`);
  return content;
}

function unpackBits(packed, count, where) {
  const bits = new Uint8Array(count);
  for (let i = 0; i < count; i++) bits[i] = (packed[i >> 3] >> (7 - (i & 7))) & 1;
  const rest = (1 << (packed.length * 8 - count)) - 1;
  check(!(packed[packed.length - 1] & rest), `${where} has bits behind its end`);
  return bits;
}

// Returns which weights of an array are negative, as bits: `data` is its segment.
function negativeBits(array, data, mask, kept) {
  if (array.origin === "signs") return unpackBits(data, kept, array.name);
  const { initialiser, key } = array.recipe;
  const words = randomWords(key, mask.length);
  const bits = new Uint8Array(kept);
  for (let i = 0, k = 0; i < mask.length; i++) {
    if (mask[i]) bits[k++] = words[i] >>> 31 === NEGATIVE[initialiser] ? 1 : 0;
  }
  return bits;
}

function checkRecipe(recipe, name) {
  checkKeys(recipe, ["initialiser", "key", "fan_in"], `the recipe of ${name}`);
  check(
    Object.hasOwn(NEGATIVE, recipe.initialiser),
    `${name} has the weight recipe ${recipe.initialiser}, which this page cannot ` +
      "compute; make the file with: aslp-jax extract --embed-weights"
  );
  const words = Array.isArray(recipe.key) && recipe.key.length === 2 && recipe.key;
  check(words && words.every((word) => isWhole(word, 0, 2 ** 32 - 1)), `${name} has no key`);
}

// Returns the effective weights of one array and how many are kept. `segment(about, size)`
// returns the content of the next segment.
async function readArray(array, count, segment) {
  const { name, origin, magnitude } = array;
  const numbers = (data) => {
    const view = new DataView(data.buffer, data.byteOffset);
    return Float32Array.from({ length: data.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  };
  if (origin === "dense") {
    check(array.mask === null, `${name} is dense, but has a mask`);
    return { weights: numbers(await segment(array.data, 4 * count)), kept: count };
  }
  check(["recipe", "signs", "values"].includes(origin), `${name} has no known origin`);
  if (origin === "recipe") checkRecipe(array.recipe, name);
  check(origin === "values" || Math.fround(magnitude) > 0, `${name} has no magnitude`);
  const unpack = async (about, size) =>
    unpackBits(await segment(about, Math.ceil(size / 8)), size, name);
  const mask = array.mask ? await unpack(array.mask, count) : new Uint8Array(count).fill(1);
  const kept = mask.reduce((sum, bit) => sum + bit, 0);
  const inverted = array.inverted ? await unpack(array.inverted, kept) : null;
  const size = { recipe: 0, signs: Math.ceil(kept / 8), values: 4 * kept }[origin];
  const data = origin === "recipe" ? null : await segment(array.data, size);
  const values = origin === "values" ? numbers(data) : null;
  const negative = values ? null : negativeBits(array, data, mask, kept);
  const scale = Math.fround(array.scale ?? 1);
  const weights = new Float32Array(count);
  for (let i = 0, k = 0; i < count; i++) {
    if (!mask[i]) continue;
    let weight = values ? values[k] : Math.fround(negative[k] ? -magnitude : magnitude);
    if (inverted && inverted[k]) weight = -weight;
    weights[i] = scale * weight;
    k++;
  }
  return { weights, kept };
}

// Returns the header of a file, after all checks that come before it.
function readHeader(content) {
  check(content.length <= MOST_BYTES, "is larger than any artefact");
  check(MAGIC.every((byte, i) => content[i] === byte), "is no artefact of aslp-jax");
  check(content.length >= 48, "is damaged");
  const sum = Array.from(content.subarray(-32), (b) => b.toString(16).padStart(2, "0"));
  check(sha256(content.subarray(0, -32)) === sum.join(""), "is damaged");
  const view = new DataView(content.buffer, content.byteOffset);
  const [format, length] = [view.getUint32(8, true), view.getUint32(12, true)];
  check(format === 1, `has format ${format}; this page reads format 1`);
  check(length <= Math.min(MOST_HEADER_BYTES, content.length - 48), "has no whole header");
  let header;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    header = JSON.parse(text.decode(content.subarray(16, 16 + length)));
  } catch {
    throw new Refused("has a header that is no JSON");
  }
  const keys = ["generator", "network", "description", "arrays", "collections"];
  checkKeys(header, keys, "the header");
  check(header.generator === "threefry2x32", "has random bits of an unknown generator");
  return { header, start: 16 + length };
}

// Refuses a description with values that the page would compute with or show.
function checkDescription(description) {
  const keys = ["arch", "dataset", "method", "seed", "mean", "std", "accuracies", "versions"];
  checkKeys(description, keys, "the description");
  const { mean, std, accuracies } = description;
  const one = (list, least) =>
    Array.isArray(list) && list.length === 1 && Number.isFinite(list[0]) && list[0] >= least;
  const none = mean === null && std === null;
  check(none || (one(mean, -Infinity) && one(std, 2 ** -126)), "has no mean and std");
  check(accuracies !== null && typeof accuracies === "object", "has no accuracies");
}

// Reads a file. `expected(network)` returns name and shape of every array, sorted by name,
// or refuses the network.
async function readArtefact(content, expected) {
  const { header, start } = readHeader(content);
  const end = content.length - 32;
  let place = start;
  async function segment(about, size, where) {
    checkKeys(about, ["bytes", "deflated"], `a segment of ${where}`);
    check(isWhole(about.bytes, 0, end - place), `a segment of ${where} is too long`);
    const stored = content.subarray(place, (place += about.bytes));
    if (about.deflated) return inflate(stored, size, `a segment of ${where}`);
    check(stored.length === size, `a segment of ${where} is not ${size} bytes long`);
    return stored;
  }
  const wanted = expected(header.network);
  checkDescription(header.description);
  check(Array.isArray(header.arrays) && Array.isArray(header.collections), "has no arrays");
  const listed = (shapes) => shapes.map(({ name, shape }) => `${name} [${shape}]`).join(", ");
  check(listed(header.arrays) === listed(wanted), "has arrays that are not its network's");
  check(header.collections.length === 0, "has statistics that its network does not use");
  const counts = wanted.map(({ shape }) => shape.reduce((product, size) => product * size, 1));
  check(counts.reduce((sum, count) => sum + count, 0) <= MOST_NUMBERS, "has too many weights");
  const [arrays, total] = [{}, { weights: 0, kept: 0, milliseconds: 0 }];
  for (const [i, array] of header.arrays.entries()) {
    const keys = ["name", "shape", "mask", "inverted", "scale", "origin", "recipe"];
    checkKeys(array, [...keys, "magnitude", "data", "sha256"], array.name);
    const began = performance.now();
    const { weights, kept } = await readArray(array, counts[i], (about, size) =>
      segment(about, size, array.name)
    );
    total.milliseconds += performance.now() - began;
    check(weights.every(Number.isFinite), `${array.name} has a weight that is not finite`);
    // Typed arrays are little-endian wherever a browser runs today.
    const found = sha256(new Uint8Array(weights.buffer));
    check(found === array.sha256, `${array.name} is not what was written`);
    arrays[array.name] = weights;
    total.weights += counts[i];
    total.kept += kept;
  }
  check(place === end, "has bytes behind its last segment");
  return { network: header.network, description: header.description, arrays, ...total };
}
