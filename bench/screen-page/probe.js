// What the benchmarks of the screen see of a page that shows one: the pixels of its first canvas, whoever draws them.

globalThis.probe = (() => {
  // Where pixels are read back, so small that it costs next to nothing.
  const paper = new OffscreenCanvas(1280, 720).getContext("2d", { willReadFrequently: true });
  paper.imageSmoothingEnabled = false;

  // The pixels of a part of the screen, as `across` × `down` samples of it; nothing while there is no such screen.
  function pixels(x, y, width, height, across = width, down = height) {
    const canvas = document.querySelector("canvas");
    if (canvas?.width !== 1280 || canvas.height !== 720) return null;
    paper.drawImage(canvas, x, y, width, height, 0, 0, across, down);
    return new Uint32Array(paper.getImageData(0, 0, across, down).data.buffer);
  }

  const differ = (a, b) => a === null || b === null || a.some((pixel, index) => pixel !== b[index]);
  // In a millisecond, and not in the four that timers make of it.
  const soon = () => scheduler.postTask(() => {}, { delay: 1 });
  const frame = () => new Promise(done => requestAnimationFrame(done));
  const epoch = () => performance.timeOrigin + performance.now();

  // Key to pixel.

  let seen;

  // From the next key on, looks at a cell of 8 × 16 pixels until it changes.
  function watchCell(x, y) {
    const before = pixels(x, y, 8, 16);
    seen = new Promise(done => {
      addEventListener("keydown", async () => {
        const pressed = performance.now();
        let looked = pressed;
        for (;;) {
          await soon();
          const last = looked;
          looked = performance.now();
          if (differ(before, pixels(x, y, 8, 16))) return done({ ms: looked - pressed, resolution: looked - last });
          if (looked - pressed > 20000) return done(null);
        }
      }, { capture: true, once: true });
    });
  }

  // The film.

  const BIT = 32;

  // The number of the picture that is shown.
  function number() {
    const bits = pixels(0, 0, 4 * BIT, 4 * BIT, 4, 4);
    if (bits === null) return null;
    let gray = 0;
    bits.forEach((pixel, bit) => { if ((pixel >> 8 & 255) > 127) gray |= 1 << bit; });
    let number = gray;
    for (let shift = 1; shift < 16; shift *= 2) number ^= number >> shift;
    return number;
  }

  // Which pictures are shown, at each frame of the browser's: [time, number].
  async function watchFilm(ms) {
    const shown = [];
    for (const end = epoch() + ms; epoch() < end;) {
      await frame();
      shown.push([epoch(), number()]);
    }
    return shown;
  }

  // Standing still.

  function hash(words) {
    let hash = 0;
    for (let at = 0; at < words.length; at++) hash = Math.imul(hash ^ words[at], 0x9e3779b1) + (hash >>> 15) | 0;
    return hash;
  }

  // Since when the screen has been as it is after so many milliseconds: by one column of pixels of each column of characters, so that
  // looking takes no time that others need. And a hash of all of it at the end.
  async function watchStill(ms) {
    let since = null, last = null;
    for (const end = epoch() + ms; epoch() < end;) {
      await frame();
      const looked = epoch(), now = hash(pixels(0, 0, 1280, 720, 160) ?? []);
      if (now !== last) since = looked;
      last = now;
    }
    return { since, hash: hash(pixels(0, 0, 1280, 720)) };
  }

  // The same hash of a PNG picture.
  async function hashOf(base64) {
    const png = new Blob([Uint8Array.from(atob(base64), character => character.charCodeAt(0))], { type: "image/png" });
    paper.drawImage(await createImageBitmap(png, { colorSpaceConversion: "none" }), 0, 0);
    return hash(new Uint32Array(paper.getImageData(0, 0, 1280, 720).data.buffer));
  }

  // The first picture: all corners and the middle are not black. Times since the page was asked for.
  async function firstPicture() {
    const places = [[0, 0], [1279, 0], [640, 360], [0, 719], [1279, 719]];
    const isBlack = ([x, y]) => ((pixels(x, y, 1, 1)?.[0] ?? 0) & 0xffffff) === 0;
    while (places.some(isBlack)) await soon();
    const picture = performance.now();
    if (document.readyState !== "complete") await new Promise(done => addEventListener("load", done));
    await soon();
    const [page] = performance.getEntriesByType("navigation");
    return { picture, interactive: page.domContentLoadedEventEnd, loaded: page.loadEventEnd };
  }

  const first = location.protocol === "about:" ? null : firstPicture();
  return { first, watchCell, get seen() { return seen; }, watchFilm, watchStill, hashOf };
})();
