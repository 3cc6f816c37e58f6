// How large a pixel of the machine's is in pixels of the person's screen, of which a page's pixel may have two or one and a half.

export class Scale {
  constructor({ canvas, stage, element }) {
    this.element = element;
    this.stage = stage;
    this.size = { width: 0, height: 0 };
    // Hears of another size as of another density: of a page that is zoomed, or dragged to another screen.
    this.observer = new ResizeObserver(([{ devicePixelContentBoxSize: [box] }]) => this.see(box.inlineSize));
    this.observer.observe(canvas, { box: "device-pixel-content-box" });
  }

  resize(size) {
    this.size = size;
    this.element.style.setProperty("--width", size.width);
    this.element.style.setProperty("--height", size.height);
    this.density();
  }

  // At 1:1 each of the machine's pixels is a square of whole ones, about as large as one of the page's.
  density() {
    this.element.style.setProperty("--pixel", `${Math.max(1, Math.round(devicePixelRatio)) / devicePixelRatio}px`);
  }

  // Only squares of whole pixels stay sharp as they are; others would differ in size, and are smoothed.
  see(width) {
    this.density();
    this.stage.classList.toggle("is-sharp", width > 0 && width % this.size.width === 0);
  }

  close() {
    this.observer.disconnect();
  }
}
