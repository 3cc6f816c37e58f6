// The connection to a machine's screen, and what shows it: away from the page, whose work then delays no picture.
//
// Told by the page: {canvas, url} once, {visible}, {say: {…}}, {close}. Tells it: {told: {…}}, {connected, wasClean}, {size}.
// What goes over the connection is in docs/SCREEN.md.

import { isThere } from "../api.js";
import { Painter } from "./painter.js";

const FIRST_WAIT = 250;
const LONGEST_WAIT = 4000;

let painter;
let url;
let socket;
let wait = FIRST_WAIT;
let visible = true;
let closed = false;

function connect() {
  if (closed) return;
  socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  // Updates are decoded side by side and painted one after the other.
  let painted = Promise.resolve();
  const own = socket;
  own.onopen = () => {
    wait = FIRST_WAIT;
    postMessage({ connected: true });
    say({ type: "visible", visible });
  };
  own.onmessage = ({ data }) => {
    if (typeof data === "string") {
      postMessage({ told: JSON.parse(data) });
      return;
    }
    const update = painter.read(data);
    painted = painted.then(async () => {
      const resized = painter.paint(await update);
      if (resized) postMessage({ size: resized });
      if (own === socket) say({ type: "shown", number: painter.number });
    }).catch(error => {
      // What it shows is not what it should be any more: begin anew.
      console.error(error);
      own.close();
    });
  };
  own.onclose = ({ wasClean }) => {
    postMessage({ connected: false, wasClean });
    again();
  };
}

function again() {
  if (closed) return;
  setTimeout(async () => ((await isThere()) ? connect() : again()), wait);
  wait = Math.min(wait * 2, LONGEST_WAIT);
}

function say(what) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what));
}

onmessage = ({ data }) => {
  if (data.canvas) {
    painter = new Painter(data.canvas);
    url = data.url;
    connect();
  } else if (data.visible !== undefined) {
    visible = data.visible;
    say({ type: "visible", visible });
  } else if (data.say) {
    say(data.say);
  } else if (data.close) {
    closed = true;
    socket?.close();
  }
};
