// A screen that has a window to itself: /screen/?machine=NAME.

import { openScreen } from "./screen.js";

const query = new URLSearchParams(location.search);
const machine = query.get("machine") ?? "";
// The token is a cookie by now, and not to be seen over anybody's shoulder.
query.delete("token");
history.replaceState(null, "", `?${query}`);
document.title = `${machine} – Watari`;
const screen = await openScreen(document.getElementById("screen"), machine);
screen.focus();
