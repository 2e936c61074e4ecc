// The login page works without this; with it, it speaks the reader's language and says that the token was wrong.

import { start } from "./page.js";

await start();
document.getElementById("wrong").hidden = !new URLSearchParams(location.search).has("wrong");
