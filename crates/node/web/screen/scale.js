// How large a pixel of the machine's is in pixels of the person's screen, of which a page's pixel may have two or one and a half.

export class Scale {
  constructor({ canvas, stage, element }) {
    this.canvas = canvas;
    this.element = element;
    this.stage = stage;
    this.size = { width: 0, height: 0 };
    this.watch = () => this.see();
    this.observer = new ResizeObserver(this.watch);
    this.observer.observe(canvas);
    this.see();
  }

  resize(size) {
    this.size = size;
    this.element.style.setProperty("--width", size.width);
    this.element.style.setProperty("--height", size.height);
    this.see();
  }

  // Whenever the picture, the machine's screen or the density of the person's is another.
  see() {
    const density = devicePixelRatio;
    this.density?.removeEventListener("change", this.watch);
    this.density = matchMedia(`(resolution: ${density}dppx)`);
    this.density.addEventListener("change", this.watch);
    // At 1:1 each of the machine's pixels is a square of whole ones, about as large as one of the page's.
    this.element.style.setProperty("--pixel", `${Math.max(1, Math.round(density)) / density}px`);
    // Only squares of whole pixels stay sharp as they are; others would differ in size, and are smoothed.
    const width = Math.round(this.canvas.getBoundingClientRect().width * density);
    this.stage.classList.toggle("is-sharp", width > 0 && width % this.size.width === 0);
  }

  close() {
    this.observer.disconnect();
    this.density.removeEventListener("change", this.watch);
  }
}
