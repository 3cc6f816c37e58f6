// Turns updates (docs/SCREEN.md, "Updates") into pixels.

const BLOCK = 64;
const ACROSS = 64;
const SLOTS = 512;
const UPDATE = 1;
const BEGINS = 1;
const HEAD_BYTES = 22;

const [COPY, FILL, RECALL, EXACT, ROUGH] = [0, 1, 2, 3, 4];

export class Painter {
  // The number of the update painted last.
  number = 0;

  constructor(canvas) {
    this.canvas = canvas;
    this.context = context(canvas);
    // The screen as it was before an update, which copies are made from: a canvas that is drawn onto itself is slow.
    this.before = context(new OffscreenCanvas(1, 1));
    // Blocks that may be wanted again, 64 beside each other.
    this.kept = context(new OffscreenCanvas(ACROSS * BLOCK, SLOTS / ACROSS * BLOCK));
  }

  // Reads an update and decodes its pictures. Changes nothing that is seen.
  async read(bytes) {
    const view = new DataView(bytes);
    if (view.getUint8(0) !== UPDATE) throw new Error(`a message of kind ${view.getUint8(0)}`);
    const [exactBytes, roughBytes] = [view.getUint32(14, true), view.getUint32(18, true)];
    const roughAt = bytes.byteLength - roughBytes;
    const exactAt = roughAt - exactBytes;
    const [exact, rough] = await Promise.all([
      decode(bytes, exactAt, exactBytes, "image/png"),
      decode(bytes, roughAt, roughBytes, "image/jpeg"),
    ]);
    return {
      begins: (view.getUint8(1) & BEGINS) !== 0,
      width: view.getUint16(2, true),
      height: view.getUint16(4, true),
      number: view.getUint32(6, true),
      steps: view.getUint32(10, true),
      view, exact, rough,
    };
  }

  // Paints an update. Returns the size of the screen if that is another one now.
  paint(update) {
    const resized = update.begins && this.begin(update.width, update.height);
    // How far the atlases are used up, which blocks are to be kept, from where, and whether `before` is of now.
    const used = { exact: 0, rough: 0, fresh: new Map(), isBefore: false };
    let at = HEAD_BYTES;
    for (let step = 0; step < update.steps; step++) {
      at = this.step(update, at, used);
    }
    this.keep(update.exact, used.fresh);
    update.exact?.close();
    update.rough?.close();
    this.number = update.number;
    return resized;
  }

  // A black screen of that size.
  begin(width, height) {
    const resized = this.canvas.width !== width || this.canvas.height !== height;
    this.canvas.width = width;
    this.canvas.height = height;
    this.context.imageSmoothingEnabled = false;
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, width, height);
    return resized && { width, height };
  }

  // Takes the step that begins at a byte, and returns where the next one does.
  step({ view, exact, rough }, at, used) {
    const [kind, column, row] = [view.getUint8(at), view.getUint8(at + 1), view.getUint8(at + 2)];
    switch (kind) {
      case COPY:
        this.remember(used);
        this.copy(column, row, view.getUint16(at + 3, true), view.getUint16(at + 5, true), view.getInt16(at + 7, true));
        return at + 9;
      case FILL:
        this.fill(column, row, view.getUint8(at + 3), [4, 5, 6].map(byte => view.getUint8(at + byte)));
        return at + 7;
      case RECALL: {
        const slot = view.getUint16(at + 3, true);
        const fresh = used.fresh.get(slot);
        this.put(fresh ? exact : this.kept.canvas, fresh ?? place(slot), column, row);
        return at + 5;
      }
      case EXACT: {
        const from = place(used.exact++);
        this.put(exact, from, column, row);
        used.fresh.set(view.getUint16(at + 3, true), from);
        return at + 5;
      }
      case ROUGH:
        this.put(rough, place(used.rough++), column, row);
        return at + 3;
      default:
        throw new Error(`a step of kind ${kind}`);
    }
  }

  // What the update brought is kept when all of it is painted: to draw onto and from a canvas by turns is slow.
  keep(exact, fresh) {
    for (const [slot, from] of fresh) {
      const to = place(slot);
      this.kept.drawImage(exact, from.x, from.y, BLOCK, BLOCK, to.x, to.y, BLOCK, BLOCK);
    }
  }

  // The screen as it is now, once an update: no copy reads what a step before it has painted.
  remember(used) {
    if (used.isBefore) return;
    used.isBefore = true;
    const { width, height } = this.canvas;
    if (this.before.canvas.width !== width || this.before.canvas.height !== height) {
      this.before = context(new OffscreenCanvas(width, height));
    }
    this.before.drawImage(this.canvas, 0, 0);
  }

  copy(column, columns, y, height, down) {
    const [x, width] = [column * BLOCK, columns * BLOCK];
    this.context.drawImage(this.before.canvas, x, y - down, width, height, x, y, width, height);
  }

  fill(column, row, count, [red, green, blue]) {
    this.context.fillStyle = `rgb(${red} ${green} ${blue})`;
    this.context.fillRect(column * BLOCK, row * BLOCK, count * BLOCK, BLOCK);
  }

  // A block of an atlas. What is beyond the screen's edge falls off it.
  put(atlas, { x, y }, column, row) {
    this.context.drawImage(atlas, x, y, BLOCK, BLOCK, column * BLOCK, row * BLOCK, BLOCK, BLOCK);
  }
}

function context(canvas) {
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingEnabled = false;
  return context;
}

// Where the how manieth block of an atlas is.
function place(index) {
  return { x: index % ACROSS * BLOCK, y: Math.floor(index / ACROSS) * BLOCK };
}

function decode(bytes, at, length, type) {
  if (length === 0) return null;
  const blob = new Blob([new Uint8Array(bytes, at, length)], { type });
  return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
}
