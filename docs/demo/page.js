"use strict";

// Joins the page: drawing, samples and files in; answer, bars and pictures out.

const WORDS = "zero one two three four five six seven eight nine".split(" ");
const STEPS = 24; // Places of the keyboard's cursor along each side of the drawing area.
const PEN = 1 / 14; // Width of the pen, as a fraction of the drawing area.
const COLUMNS = 8; // Pictures of the first layer in a row, with a gap of a pixel.

const at = (id) => document.getElementById(id);
const canvas = at("canvas");
const cursor = { x: STEPS / 2, y: STEPS / 2, shown: false, down: false };
let network = null;
let strokes = [];
let sample = null;
let pointer = null;
let waiting = false;

const number = (value) => value.toLocaleString("en-GB");
const percent = (part) => `${number(Math.round(part * 1000) / 10)} %`;
const time = (milliseconds) => `${number(Number(milliseconds.toPrecision(2)))} ms`;

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// Paints an image in shades of ink: `shades` from 0 to 1, row by row, from pixel (x, y).
function paint(target, shades, side, x = 0, y = 0) {
  const context = target.getContext("2d");
  const image = context.createImageData(side, side);
  shades.forEach((shade, i) => (image.data[4 * i + 3] = Math.round(shade * 255)));
  context.putImageData(image, x, y);
}

function paintFirst(first) {
  const filters = first.length / SIDE ** 2;
  const most = first.reduce((one, other) => Math.max(one, other), 1e-9);
  const target = at("first");
  target.width = COLUMNS * (SIDE + 1) - 1;
  target.height = Math.ceil(filters / COLUMNS) * (SIDE + 1) - 1;
  const context = target.getContext("2d");
  context.fillStyle = "#75818d";
  context.fillRect(0, 0, target.width, target.height);
  let active = 0;
  for (let filter = 0; filter < filters; filter++) {
    const shades = Float32Array.from({ length: SIDE ** 2 }, (_, i) => first[i * filters + filter]);
    if (shades.some((shade) => shade > 0)) active++;
    const [x, y] = [filter % COLUMNS, Math.floor(filter / COLUMNS)];
    paint(target, shades.map((shade) => shade / most), SIDE, x * (SIDE + 1), y * (SIDE + 1));
  }
  const respond = `${active} of ${filters} filters respond`;
  target.setAttribute("aria-label", `Responses of the first layer: ${respond}`);
  at("first-caption").textContent =
    `The first layer, a picture for each filter: more ink is a stronger response. ${respond}.`;
}

function showBars(parts) {
  const best = parts.indexOf(Math.max(...parts));
  [...at("bars").rows].forEach((row, i) => {
    row.className = parts[i] > 0 && i === best ? "best" : "";
    row.querySelector(".fill").style.width = `${parts[i] * 100}%`;
    row.querySelector(".part").textContent = percent(parts[i]);
  });
  return best;
}

// Shows an image of 64 bytes and what the network reads in it. Returns its logits.
function show(image) {
  paint(at("seen"), Array.from(image, (byte) => byte / 255), SIDE);
  const inked = image.filter((byte) => byte > 0).length;
  at("seen").setAttribute("aria-label", `The image of 8 by 8 pixels: ${inked} hold ink`);
  if (!network) return null;
  const began = performance.now();
  const { logits, first } = run(network, image);
  at("image-time").textContent = time(performance.now() - began);
  const parts = softmax(logits);
  const best = showBars(parts);
  const label = sample ? ` The label of this test digit is ${sample.label}.` : "";
  const answer = `It reads ${WORDS[best]} (${best}), probability ${percent(parts[best])}.`;
  at("answer").textContent = answer + label;
  paintFirst(first);
  return logits;
}

function showNothing() {
  paint(at("seen"), new Uint8Array(SIDE ** 2), SIDE);
  at("seen").setAttribute("aria-label", "The image of 8 by 8 pixels: empty");
  at("answer").textContent = network
    ? "Draw a digit, or choose one below."
    : "No network is loaded. Open an artefact below.";
  showBars(new Array(CLASSES).fill(0));
  paintFirst(new Float32Array(SIDE ** 2 * (network?.network.stages[0] ?? CLASSES)));
}

function paintDrawing() {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  context.clearRect(0, 0, side, side);
  if (sample) {
    const small = document.createElement("canvas");
    small.width = small.height = SIDE;
    paint(small, Array.from(sample.image, (byte) => byte / 255), SIDE);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, side, side);
  }
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = PEN * side;
  for (const stroke of strokes) {
    context.beginPath();
    for (const [x, y] of [stroke[0], ...stroke]) context.lineTo(x * side, y * side);
    context.stroke();
  }
  if (!cursor.shown) return;
  const [x, y] = [cursor.x, cursor.y].map((place) => (place / STEPS) * side);
  for (const [width, colour] of [[12, "#ffffff"], [6, cursor.down ? "#b3261e" : "#0b5cad"]]) {
    context.beginPath();
    context.arc(x, y, PEN * side * 0.75, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  }
  context.strokeStyle = "#000000";
}

// Paints the drawing and shows what is read in it, once a frame.
function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    at("answer").setAttribute("aria-busy", String(pointer !== null || cursor.down));
    paintDrawing();
    if (sample) show(sample.image);
    else if (strokes.length) show(imageOf(strokes));
    else showNothing();
  });
}

function sayPen() {
  const where = `column ${cursor.x} of ${STEPS}, row ${cursor.y} of ${STEPS}`;
  at("pen").textContent = cursor.shown ? `Pen ${cursor.down ? "down" : "up"}, ${where}.` : "";
}

function begin(point) {
  sample = null;
  strokes.push([point]);
  update();
}

// Goes on with the last stroke; points closer than a hundredth of the area are left out.
function extend(point) {
  const stroke = strokes[strokes.length - 1];
  const [x, y] = stroke[stroke.length - 1];
  if (Math.hypot(point[0] - x, point[1] - y) < 0.01) return;
  stroke.push(point);
  update();
}

function clear() {
  strokes = [];
  sample = null;
  pointer = null;
  cursor.down = false;
  sayPen();
  update();
}

function placeOf(event) {
  const box = canvas.getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(value, 0), 1);
  return [
    inside((event.clientX - box.left) / box.width),
    inside((event.clientY - box.top) / box.height),
  ];
}

function drawWithPointer() {
  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    Object.assign(cursor, { shown: false, down: false });
    sayPen();
    begin(placeOf(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId === pointer) extend(placeOf(event));
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (event.pointerId !== pointer) return;
      pointer = null;
      update();
    });
  }
}

function pressKey(event) {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const here = () => [cursor.x / STEPS, cursor.y / STEPS];
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in moves) {
    const far = event.shiftKey ? 4 : 1;
    const [right, down] = moves[event.key];
    cursor.x = Math.min(Math.max(cursor.x + far * right, 0), STEPS);
    cursor.y = Math.min(Math.max(cursor.y + far * down, 0), STEPS);
    if (cursor.down) extend(here());
  } else if (event.key === " ") {
    cursor.down = !cursor.down;
    if (cursor.down) begin(here());
  } else if (event.key === "Delete" || event.key === "Backspace") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  cursor.shown = true;
  sayPen();
  update();
}

function drawWithKeys() {
  canvas.addEventListener("keydown", pressKey);
  canvas.addEventListener("focus", () => {
    cursor.shown = canvas.matches(":focus-visible");
    sayPen();
    update();
  });
  canvas.addEventListener("blur", () => {
    Object.assign(cursor, { shown: false, down: false });
    sayPen();
    update();
  });
}

function addSamples() {
  for (const { label, base64 } of SAMPLES) {
    const image = bytesOf(base64);
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Test digit ${label}`);
    const small = document.createElement("canvas");
    small.className = "ink pixels";
    small.width = small.height = SIDE;
    paint(small, Array.from(image, (byte) => byte / 255), SIDE);
    button.append(small);
    button.addEventListener("click", () => {
      clear();
      sample = { label, image };
    });
    at("samples").append(button);
  }
}

function addBars() {
  for (let digit = 0; digit < CLASSES; digit++) {
    const row = at("bars").insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = digit;
    const bar = document.createElement("div");
    bar.className = "bar";
    const [track, fill, part] = [0, 1, 2].map(() => document.createElement("span"));
    [track.className, fill.className, part.className] = ["track", "fill", "part"];
    track.append(fill);
    bar.append(track, part);
    row.append(head);
    row.insertCell().append(bar);
  }
}

function describeFile(content) {
  const { weights, kept, milliseconds, description } = network;
  const accuracy = description.accuracies.thresholding;
  at("bytes").textContent = number(content.length);
  at("weights").textContent = `${number(weights)}, of which ${number(kept)} are kept`;
  at("dense").textContent = `${number(4 * weights)} bytes`;
  at("accuracy").textContent = Number.isFinite(accuracy) ? percent(accuracy) : "none";
  at("drawing-time").textContent = time(milliseconds);
}

// Opens a file; if it is refused, one line says why and the network stays as it was.
async function openFile(name, read) {
  at("problem").textContent = "";
  try {
    const content = await read();
    network = await readArtefact(content, arraysOf);
    describeFile(content);
  } catch (error) {
    const why = error instanceof Refused ? error.message : `cannot be read: ${error.message}`;
    at("problem").textContent = `${name}: ${why}.`;
  }
  update();
}

async function openPicked(event) {
  const [file] = event.target.files;
  if (!file) return;
  await openFile(file.name, async () => {
    check(file.size <= MOST_BYTES, "is larger than any artefact");
    return new Uint8Array(await file.arrayBuffer());
  });
  event.target.value = "";
}

addBars();
drawWithPointer();
drawWithKeys();
at("clear").addEventListener("click", clear);
at("picker").addEventListener("change", openPicked);
if (typeof ARTEFACT === "undefined") {
  at("problem").textContent = "data.js is missing or damaged, so no network is loaded.";
  update();
} else {
  addSamples();
  openFile(ARTEFACT.name, async () => bytesOf(ARTEFACT.base64));
}
