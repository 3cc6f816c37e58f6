// A console that has a window to itself: /console/?machine=NAME.

import { openConsole } from "./console.js";

const query = new URLSearchParams(location.search);
const machine = query.get("machine") ?? "";
// The token is a cookie by now, and not to be seen over anybody's shoulder.
query.delete("token");
history.replaceState(null, "", `?${query}`);
document.title = `${machine}: console – Watari`;
(await openConsole(document.getElementById("console"), machine)).focus();
