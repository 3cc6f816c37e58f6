// The connection to a machine's console, made again whenever it ends.
//
// Tells `hear`: {connected, trouble}, {begin, bytes} for what was printed before, {bytes} for what is printed, {state}.

import { get, isThere, path } from "../api.js";

const FIRST_WAIT = 250;
const LONGEST_WAIT = 4000;
// The node takes no longer messages than 64 KiB.
const MOST_BYTES = 16384;

export class Line {
  constructor(machine, hear) {
    this.machine = machine;
    this.hear = hear;
    this.wait = FIRST_WAIT;
    this.isClosed = false;
    this.connect();
  }

  connect() {
    if (this.isClosed) return;
    const url = new URL(`/api/v1/${path("machines", this.machine, "console")}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    let begin = null;
    this.socket.onopen = () => {
      this.wait = FIRST_WAIT;
      this.hear({ connected: true });
    };
    this.socket.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        this.hear({ begin, bytes: new Uint8Array(data) });
        begin = null;
        return;
      }
      const news = JSON.parse(data);
      if (news.type === "begin") begin = news;
      if (news.type === "state") this.hear({ state: news });
    };
    this.socket.onclose = () => this.lose();
  }

  // A browser does not tell why a connection ended or did not come about; the node does, if it answers.
  async lose() {
    if (this.isClosed) return;
    setTimeout(() => this.retry(), this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    const lost = this.socket;
    const trouble = await get(path("machines", this.machine)).then(
      () => "The connection was lost",
      (error) => error.message,
    );
    if (lost === this.socket) this.hear({ connected: false, trouble });
  }

  async retry() {
    if (await isThere()) this.connect();
    else this.lose();
  }

  // What is typed while there is no connection is lost.
  say(bytes) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    for (let at = 0; at < bytes.length; at += MOST_BYTES) this.socket.send(bytes.subarray(at, at + MOST_BYTES));
  }

  // Begins anew with what was printed last.
  again() {
    this.socket.close();
  }

  close() {
    this.isClosed = true;
    this.socket.close();
  }
}
