// Elements, made and kept: the few helpers that stand in for a framework.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Properties that are functions are listeners (`onclick`); `null`, `undefined` and `false` are left out. */
export function h(tag, properties = {}, ...children) {
  return furnish(document.createElement(tag), properties, children);
}

/** An SVG element. */
export function svg(tag, properties = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), properties, children);
}

function furnish(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Text that only a screen reader says. */
export function unseen(text) {
  return h("span", { class: "unseen" }, text);
}

/** A definition list's content, of `[term, value]` pairs; pairs without a value are left out. */
export function terms(pairs) {
  return pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value)));
}

/** Sets an element's text unless it is that already: what did not change keeps its selection, and is not read out again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const CONTROLS = "a, button";
const drawn = new WeakMap();

/** Fills an element with what `draw` makes of `value`, unless it was drawn from an equal one. The focus stays inside. */
export function redraw(element, value, draw) {
  const key = JSON.stringify(value);
  if (drawn.get(element) === key) return;
  drawn.set(element, key);
  const focused = element.contains(document.activeElement) ? document.activeElement.textContent : null;
  element.replaceChildren(...[draw(value)].flat());
  if (focused === null) return;
  const controls = [...element.querySelectorAll(CONTROLS)];
  (controls.find((control) => control.textContent === focused) ?? controls[0])?.focus();
}

const kept = new WeakMap();

/**
 * Brings a parent's children in line with `items`, each known by its key. `make(item)` gives `{element, update, close}`;
 * what stays is updated in place, so that focus and selection stay where they are.
 */
export function keep(parent, items, keyOf, make) {
  const before = kept.get(parent) ?? new Map();
  const after = new Map(items.map((item) => [keyOf(item), before.get(keyOf(item)) ?? make(item)]));
  for (const [key, part] of before) {
    if (!after.has(key)) drop(part);
  }
  let place = parent.firstChild;
  for (const item of items) {
    const part = after.get(keyOf(item));
    part.update(item);
    if (part.element === place) place = place.nextSibling;
    else parent.insertBefore(part.element, place);
  }
  kept.set(parent, after);
}

function drop({ element, close }) {
  const neighbour = element.nextElementSibling ?? element.previousElementSibling;
  const isFocused = element.contains(document.activeElement);
  element.remove();
  close?.();
  if (isFocused) neighbour?.querySelector(CONTROLS)?.focus();
}

/** Closes every part that `keep` made in a parent. */
export function closeKept(parent) {
  for (const part of kept.get(parent)?.values() ?? []) part.close?.();
  kept.delete(parent);
}
