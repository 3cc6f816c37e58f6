// What can be done with a screen besides using it: sizes, keys that a browser keeps for itself, control.

const COMBINATIONS = [
  ["Ctrl+Alt+Del", ["ControlLeft", "AltLeft", "Delete"]],
  ["Ctrl+Alt+Backspace", ["ControlLeft", "AltLeft", "Backspace"]],
  ["Ctrl+Alt+F1", ["ControlLeft", "AltLeft", "F1"]],
  ["Ctrl+Alt+F2", ["ControlLeft", "AltLeft", "F2"]],
  ["Ctrl+Alt+F7", ["ControlLeft", "AltLeft", "F7"]],
  ["Alt+Tab", ["AltLeft", "Tab"]],
  ["Alt+F4", ["AltLeft", "F4"]],
  ["Print screen", ["PrintScreen"]],
  ["Super", ["MetaLeft"]],
];

// As virtual machines' windows have it.
export const WAY_OUT = "Ctrl+Alt leaves the screen";

export class Bar {
  constructor(screen) {
    this.screen = screen;
    this.bar = element("div", { className: "screen-bar", role: "toolbar", ariaLabel: "Screen" });
    this.who = element("span", { className: "screen-who" });
    this.take = button("Take control", () => {
      screen.take();
      screen.focus();
    });
    this.keys = this.menu();
    this.fit = button("1:1", () => this.setFit(!screen.element.classList.contains("is-actual")));
    this.lock = button("Capture pointer", () => {
      screen.stage.requestPointerLock?.();
      screen.focus();
    });
    this.full = button("Full screen", () => this.fill());
    this.text = button("Text…", () => screen.text.open());
    // Tab passes the screen by, which would keep it; and one that is touched does not take the focus with every tap.
    this.board = button("Keyboard", () => screen.focus());
    const wayOut = element("span", { className: "screen-way-out", textContent: WAY_OUT, ariaHidden: "true" });
    this.bar.append(this.who, this.take, this.board, this.keys, this.text, this.fit, this.lock, this.full, wayOut);
    screen.element.prepend(this.bar);
    this.update();
  }

  menu() {
    const keys = element("select", { ariaLabel: "Send keys" });
    keys.append(new Option("Send keys…", ""), ...COMBINATIONS.map(([name], index) => new Option(name, index)));
    keys.onchange = () => {
      if (keys.value !== "") this.screen.keyboard.combine(COMBINATIONS[keys.value][1]);
      keys.value = "";
      this.screen.focus();
    };
    return keys;
  }

  setFit(isActual) {
    this.screen.element.classList.toggle("is-actual", isActual);
    this.fit.textContent = isActual ? "Fit" : "1:1";
  }

  focus() {
    this.board.focus();
  }

  async fill() {
    await this.screen.element.requestFullscreen();
    // Then also keys that the browser would take for itself, where it lets us.
    await navigator.keyboard?.lock?.().catch(() => {});
    this.screen.focus();
  }

  update() {
    const { state, isInControl } = this.screen;
    this.take.hidden = !state?.may_control || state.control !== "anothers";
    for (const control of [this.board, this.keys, this.text, this.lock]) control.disabled = !isInControl;
    this.who.textContent = who(state);
  }
}

// Who watches, and who is in control.
function who(state) {
  if (!state) return "";
  const others = state.viewers - 1;
  const watching = others > 0 ? `${others} more ${others === 1 ? "viewer" : "viewers"}` : "";
  const control = !state.may_control ? "View only" : state.control === "anothers" ? "Somebody else is in control" : "";
  return [control, watching].filter(Boolean).join(" · ");
}

function button(text, act) {
  return element("button", { type: "button", textContent: text, onclick: act });
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
