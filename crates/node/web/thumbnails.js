// Small pictures of running machines' screens. They come one after the other, so that a node with many machines
// sees a steady trickle of requests, and only for what is in sight.

import { path } from "./api.js";
import { h } from "./dom.js";
import { poll } from "./poll.js";

const EVERY_MS = 2_000;
/** A machine that is being worked on answers late; the others do not wait for it. */
const PATIENCE_MS = 4_000;

/** Keeps the thumbnails of one view fresh. */
export class Thumbnails {
  #live = new Map();
  #inSight = new Set();
  #observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) this.#inSight.add(entry.target);
      else this.#inSight.delete(entry.target);
    }
    this.#poll.now();
  });
  #poll = poll((signal) => this.#turn(signal), EVERY_MS);

  /** A picture's place. Its name and state stand beside it, so it says nothing to those who do not see it. */
  add() {
    const image = h("img", { alt: "", hidden: true, width: 720, height: 400 });
    const element = h("div", { class: "thumbnail" }, image);
    this.#observer.observe(element);
    return {
      element,
      /** Of which machine; `null` while it shows nothing. */
      show: (name) => this.#show(element, image, name),
      close: () => this.#forget(element),
    };
  }

  close() {
    this.#poll.close();
    this.#observer.disconnect();
  }

  #show(element, image, name) {
    const before = this.#live.get(element);
    if (before?.name === name) return;
    if (name) {
      this.#live.set(element, { image, name });
      this.#poll.now();
    } else {
      this.#live.delete(element);
      image.hidden = true;
    }
  }

  #forget(element) {
    this.#observer.unobserve(element);
    this.#inSight.delete(element);
    this.#live.delete(element);
  }

  async #turn(signal) {
    for (const [element, { image, name }] of this.#live) {
      if (signal?.aborted) return;
      if (this.#inSight.has(element)) await load(image, name);
    }
  }
}

/** The old picture stays until the new one is there. */
function load(image, name) {
  return new Promise((resolve) => {
    const finish = (isShown) => {
      clearTimeout(timer);
      image.onload = image.onerror = null;
      if (isShown !== undefined) image.hidden = !isShown;
      resolve();
    };
    const timer = setTimeout(finish, PATIENCE_MS);
    image.onload = () => finish(true);
    image.onerror = () => finish(false);
    image.src = `/api/v1/${path("machines", name, "thumbnail")}?${Date.now()}`;
  });
}
