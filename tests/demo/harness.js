// Runs what the demo page computes, without a page: JSON in, JSON out.
//
// Input: `files` and `images` in base64, `keys` of Threefry with a `count`, `drawings` as
// lists of strokes. Output: for each file the line of its refusal, or its logits and the
// responses of the first layer to each image; the words of each key; the image of each
// drawing.
"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");

const folder = path.join(__dirname, "..", "..", "docs", "demo");
for (const name of ["artefact.js", "network.js", "drawing.js"]) {
  vm.runInThisContext(fs.readFileSync(path.join(folder, name), "utf8"), { filename: name });
}
const names = "readArtefact, arraysOf, run, randomWords, sha256, imageOf, Refused";
const demo = vm.runInThisContext(`({ ${names} })`);

const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));

async function answer({ files = [], images = [], keys = [], count = 0, drawings = [] }) {
  const networks = [];
  for (const file of files) {
    try {
      const network = await demo.readArtefact(bytes(file), demo.arraysOf);
      const results = images.map((image) => demo.run(network, bytes(image)));
      networks.push({
        kept: network.kept,
        logits: results.map(({ logits }) => Array.from(logits)),
        first: results.slice(0, 2).map(({ first }) => Array.from(first)),
      });
    } catch (error) {
      if (!(error instanceof demo.Refused)) throw error;
      networks.push({ refused: error.message });
    }
  }
  return {
    networks,
    words: keys.map((key) => Array.from(demo.randomWords(key, count))),
    hashes: images.map((image) => demo.sha256(bytes(image))),
    drawn: drawings.map((strokes) => Array.from(demo.imageOf(strokes))),
  };
}

answer(JSON.parse(fs.readFileSync(0, "utf8"))).then((found) =>
  process.stdout.write(JSON.stringify(found))
);
