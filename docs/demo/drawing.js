"use strict";

// Reduces a drawing to the image that the network was trained on. The digits data set was
// made so: a digit fills a bitmap of 32x32, its ink is made thinner or thicker, and a pixel
// of the image counts the ink in 4x4 cells of the bitmap (aslp_jax/data/README.md).

const BITMAP = 32;
const CELL = BITMAP / SIDE;
// What the images of the data set have in common, in pixels of the bitmap.
const INK_WIDTH = 20;
const INK_HEIGHT = 32;
const INK = 310;
// How much more one axis may be stretched than the other: a one must not become a block.
const MOST_STRETCH = 2;

// Returns strokes moved and scaled so that a pen of this radius fills the middle of the
// bitmap. Strokes are lists of points [x, y].
function fit(strokes, radius) {
  const points = strokes.flat();
  const [x, y] = [0, 1].map((axis) => {
    const along = points.map((point) => point[axis]);
    const [low, high] = [Math.min(...along), Math.max(...along)];
    const room = (axis ? INK_HEIGHT : INK_WIDTH) - 2 * radius;
    return { middle: (low + high) / 2, scale: room / Math.max(high - low, 1e-3) };
  });
  const [right, down] = [
    Math.min(x.scale, MOST_STRETCH * y.scale),
    Math.min(y.scale, MOST_STRETCH * x.scale),
  ];
  return strokes.map((stroke) =>
    stroke.map((point) => [
      (point[0] - x.middle) * right + BITMAP / 2,
      (point[1] - y.middle) * down + BITMAP / 2,
    ])
  );
}

// Returns the squared distance of a point from the line between two others.
function squaredDistance(x, y, [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
  const part = Math.min(Math.max(along, 0), 1);
  return (x - x0 - part * dx) ** 2 + (y - y0 - part * dy) ** 2;
}

// Returns the bitmap of strokes that a pen of this radius draws: a byte a pixel, 0 or 1.
function bitmapOf(strokes, radius) {
  const bitmap = new Uint8Array(BITMAP * BITMAP);
  for (const stroke of fit(strokes, radius)) {
    stroke.forEach((end, i) => {
      const start = stroke[Math.max(i - 1, 0)];
      const range = (axis) => [
        Math.max(Math.floor(Math.min(start[axis], end[axis]) - radius), 0),
        Math.min(Math.ceil(Math.max(start[axis], end[axis]) + radius), BITMAP),
      ];
      const [[left, right], [top, bottom]] = [range(0), range(1)];
      for (let y = top; y < bottom; y++) {
        for (let x = left; x < right; x++) {
          const distance = squaredDistance(x + 0.5, y + 0.5, start, end);
          if (distance <= radius * radius) bitmap[y * BITMAP + x] = 1;
        }
      }
    });
  }
  return bitmap;
}

// Returns the image of a drawing: 64 bytes from 0 to 255, row by row.
function imageOf(strokes) {
  let [thin, thick] = [0.5, 8];
  let bitmap;
  for (let step = 0; step < 7; step++) {
    const radius = (thin + thick) / 2;
    bitmap = bitmapOf(strokes, radius);
    const ink = bitmap.reduce((sum, pixel) => sum + pixel, 0);
    if (ink < INK) thin = radius;
    else thick = radius;
  }
  const counts = new Uint8Array(SIDE * SIDE);
  bitmap.forEach((pixel, i) => {
    const [y, x] = [Math.floor(i / BITMAP), i % BITMAP];
    counts[Math.floor(y / CELL) * SIDE + Math.floor(x / CELL)] += pixel;
  });
  return counts.map((count) => Math.round((count * 255) / CELL ** 2));
}
