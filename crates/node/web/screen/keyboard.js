// Keys, by their place on the keyboard: what they mean is the machine's to decide. What an input method or a touch screen's keyboard
// makes comes as text, which the node types.

// There is something to delete, so that a keyboard that sends no keys says that it would.
const FILLER = "\u200b";
const IS_WINDOWS = /^Win/.test(navigator.platform);
const IS_MAC = /^Mac/.test(navigator.platform);

export class Keyboard {
  // `write` is told text, and `leave` that the person wants to be elsewhere on the page.
  constructor(input, say, write, leave) {
    this.input = input;
    this.say = say;
    this.write = write;
    this.leave = leave;
    this.isLeaving = false;
    this.held = new Set();
    // AltGr on Windows says that Control is pressed as well, just before.
    this.control = null;
    this.listeners = new AbortController();
    const on = (type, handle) => input.addEventListener(type, handle, { signal: this.listeners.signal });
    on("keydown", event => this.down(event));
    on("keyup", event => this.up(event));
    on("input", event => this.take(event));
    on("compositionend", event => this.take(event));
    on("blur", () => this.release());
    this.empty();
  }

  down(event) {
    // What an input method makes of it comes as text.
    if (event.isComposing || event.key === "Process" || !event.code) return;
    event.preventDefault();
    this.settle(event);
    if (IS_WINDOWS && event.code === "ControlLeft" && !event.repeat) {
      this.control = { time: event.timeStamp, timer: setTimeout(() => this.settle(null), 10) };
      return;
    }
    this.press(event.code);
    // A key that is pressed with Command is never said to be let go of.
    if (IS_MAC && event.metaKey && !event.code.startsWith("Meta")) this.lift(event.code);
  }

  up(event) {
    if (!event.code) return;
    event.preventDefault();
    this.settle(null);
    this.lift(event.code);
  }

  // Whether Control was pressed is known once something else is, or nothing.
  settle(event) {
    if (!this.control) return;
    clearTimeout(this.control.timer);
    const isAltGr = event?.code === "AltRight" && event.timeStamp - this.control.time < 10;
    this.control = null;
    if (!isAltGr) this.press("ControlLeft");
  }

  // Text came instead of keys. While it is being composed it is nothing yet.
  take(event) {
    if (event.isComposing) return;
    if (event.inputType?.startsWith("delete")) this.combine(["Backspace"]);
    else if (this.input.value !== FILLER) this.write(this.input.value.replace(FILLER, ""));
    this.empty();
  }

  empty() {
    this.input.value = FILLER;
  }

  press(code) {
    this.held.add(code);
    this.isLeaving = this.held.size === 2 && this.held.has("AltLeft") && /Control/.test([...this.held]);
    this.say({ type: "key", code, down: true });
  }

  lift(code) {
    if (!this.held.delete(code)) return;
    this.say({ type: "key", code, down: false });
    // Tab is the machine's, like every key. Control and Alt together, with no other until one of them is let go of, are nobody's.
    if (this.isLeaving) this.leave();
    this.isLeaving = false;
  }

  // A combination that the browser or the desktop keeps for itself.
  combine(codes) {
    codes.forEach(code => this.press(code));
    [...codes].reverse().forEach(code => this.lift(code));
  }

  // Nothing is held any more: who has left the page lets go of keys elsewhere.
  release() {
    this.settle(null);
    this.held.clear();
    this.say({ type: "release" });
  }

  close() {
    this.release();
    this.listeners.abort();
  }
}
