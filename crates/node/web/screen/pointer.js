// The pointer: mouse, pen, fingers. It is where the person's is, or, locked to the picture, moves as far as that does.
//
// Fingers: a tap clicks, a long one with the right button; one that moves drags; two that move turn the wheel.

const LONG_MS = 500;
// What a browser calls a step of the wheel, in pixels.
const STEP_PIXELS = 100;
const LINES = 3;
const [LEFT, RIGHT] = [1, 2];

export class Pointer {
  constructor(screen, say) {
    this.screen = screen;
    this.say = say;
    this.wheel = 0;
    this.fingers = new Map();
    this.listeners = new AbortController();
    const on = (type, handle, options) =>
      screen.stage.addEventListener(type, handle, { ...options, signal: this.listeners.signal });
    on("pointerdown", event => this.down(event));
    on("pointermove", event => this.move(event));
    on("pointerup", event => this.up(event));
    on("pointercancel", event => this.up(event));
    on("contextmenu", event => event.preventDefault());
    on("wheel", event => this.turn(event), { passive: false });
  }

  get isLocked() {
    return document.pointerLockElement === this.screen.stage;
  }

  down(event) {
    event.preventDefault();
    // One that is locked is captured anyway, and may not be so twice.
    if (!this.isLocked) this.screen.stage.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") {
      this.touch(event);
      return;
    }
    this.screen.focus();
    this.report(event, event.buttons);
  }

  move(event) {
    if (event.pointerType === "touch") this.slide(event);
    else this.report(event, event.buttons);
  }

  up(event) {
    if (event.pointerType === "touch") this.lift(event);
    else this.report(event, event.buttons);
  }

  // Where it is, or how far it has moved.
  report(event, buttons) {
    if (this.isLocked) {
      this.say({ type: "moved", right: Math.round(event.movementX), down: Math.round(event.movementY), buttons: buttons & 31 });
      return;
    }
    this.say({ type: "pointer", ...this.pixel(event), buttons: buttons & 31 });
  }

  // The pixel of the machine's screen that is there.
  pixel({ clientX, clientY }) {
    const { width, height } = this.screen.scale.size;
    const box = this.screen.canvas.getBoundingClientRect();
    const along = (at, start, length, pixels) =>
      Math.max(0, Math.min(pixels - 1, Math.floor((at - start) / length * pixels)));
    return {
      x: along(clientX, box.left, box.width, width),
      y: along(clientY, box.top, box.height, height),
    };
  }

  turn(event) {
    event.preventDefault();
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? STEP_PIXELS : LINES;
    this.roll(-event.deltaY / unit);
  }

  // Small turns add up to steps.
  roll(steps) {
    this.wheel += steps;
    const up = Math.max(-16, Math.min(16, Math.trunc(this.wheel)));
    this.wheel -= up;
    if (up !== 0) this.say({ type: "wheel", up });
  }

  touch(event) {
    const finger = { x: event.clientX, y: event.clientY, isDragging: false, isDone: false };
    this.fingers.set(event.pointerId, finger);
    if (this.fingers.size > 1) {
      this.fingers.forEach(other => Object.assign(other, { isDone: true }));
      return;
    }
    this.report(event, 0);
    finger.timer = setTimeout(() => {
      if (finger.isDragging || finger.isDone) return;
      finger.isDone = true;
      this.click(event, RIGHT);
    }, LONG_MS);
  }

  slide(event) {
    const finger = this.fingers.get(event.pointerId);
    if (!finger) return;
    if (this.fingers.size > 1) {
      this.roll((event.clientY - finger.y) / (STEP_PIXELS * this.fingers.size / 2));
      finger.y = event.clientY;
      return;
    }
    const far = Math.hypot(event.clientX - finger.x, event.clientY - finger.y) > 8;
    if (far && !finger.isDone) finger.isDragging = true;
    if (finger.isDragging) this.report(event, LEFT);
  }

  lift(event) {
    const finger = this.fingers.get(event.pointerId);
    if (!finger) return;
    clearTimeout(finger.timer);
    this.fingers.delete(event.pointerId);
    if (finger.isDragging) this.report(event, 0);
    else if (!finger.isDone && event.type === "pointerup") this.click(event, LEFT);
  }

  click(event, button) {
    this.report(event, button);
    this.report(event, 0);
  }

  close() {
    this.listeners.abort();
  }
}
