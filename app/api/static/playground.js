/** The page: one stream at a time, what is known of it, and buttons to trouble it. */

import { Answer } from "./answer.js";
import { EventLog } from "./event_log.js";
import { Meters } from "./meters.js";
import { RequestForm } from "./request_form.js";
import { generate, resume } from "./sluice/sluice.js";

const STREAM_ID = /^[0-9A-Za-z_-]{22,40}$/;
// Where this page is, the API is: at the origin's root, or below what a proxy puts before both.
const baseUrl = new URL(".", location.href).pathname.replace(/\/$/, "");

const find = (id) => document.querySelector(`#${id}`);
const answer = new Answer(find("text"));
const events = new EventLog(find("log"), find("kept"));
const meters = new Meters();
const form = new RequestForm(find("request"), baseUrl);
let current = null;

/** Read a stream to its end, and show all of it. @param {(options: object) => import("./sluice/sluice.js").SluiceStream} open */
async function watch(open) {
  const leave = new AbortController();
  const stream = open({ baseUrl, signal: leave.signal, onConnection, onFrame: (frame) => events.frame(frame) });
  current = { stream, leave };
  enable(true);
  answer.clear();
  events.clear();
  meters.clear();
  say("");
  find("answer").scrollIntoView({ block: "nearest" }); // on a narrow screen it begins below the form
  try {
    for await (const event of stream) show(event);
    meters.state("done", "good");
  } catch (error) {
    ended(error);
  } finally {
    current = null;
    enable(false);
  }
}

function show({ type, data }) {
  if (type === "token") {
    answer.add(data);
    meters.token();
    meters.state("streaming", "live");
  } else if (type === "reset") {
    answer.clear();
    meters.void();
  }
}

function ended(error) {
  if (error.code === "cancelled" || error.name === "AbortError") return meters.state("cancelled", "warn");
  const text = `${error.code ?? error.name}: ${error.message}`;
  meters.state("error", "bad");
  say(text, "bad");
  // An error that is an event of the stream's has its line already.
  if (error.status) events.connection("refused", `${error.status}, ${text}`);
  if (error.code === "not_found") history.replaceState(null, "", location.pathname);
}

function onConnection({ state, connection, method, after, reason, delayMs }) {
  const { streamId } = current.stream;
  meters.connections(connection);
  if (state === "connecting") {
    const place = after === null ? "" : `, behind ${after.slice(after.indexOf(".") + 1)}`;
    events.connection("connect", `${method}, connection ${connection}${place}`);
    if (connection === 1) meters.state("connecting", "live");
  } else if (state === "open") {
    events.connection("open", streamId ?? "");
    meters.stream(streamId, `${baseUrl}/api/v1/streams/${streamId}/status`);
    // A page that is loaded anew finds its stream again.
    history.replaceState(null, "", `#${streamId}`);
    meters.state("waiting for tokens", "live");
  } else if (state === "lost") {
    events.connection("lost", `${reason}; the next try is in ${Math.round(delayMs)} ms`);
    meters.state(`resuming: ${reason}`, "warn");
  } else {
    events.connection("offline", `${reason}; the next try is when the browser is online`);
    meters.state("offline", "warn");
  }
}

async function stop({ stream, leave }) {
  try {
    await stream.cancel();
  } catch (error) {
    // Whoever cannot reach the server can still stop reading; its disconnect policy does the rest.
    say(`The server did not hear of it: ${error.message}`);
    leave.abort();
  }
}

async function copy() {
  const text = form.curl;
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    // No clipboard without HTTPS or a user's consent: then at least it can be selected.
    say(text);
  }
}

/** Buttons that need a stream; not by `disabled`, which would drop the focus. */
function enable(streaming) {
  for (const id of ["stop", "cut"]) find(id).ariaDisabled = String(!streaming);
  find("send").ariaDisabled = String(streaming);
}

function say(text, tone = "") {
  find("note").textContent = text;
  find("note").dataset.tone = tone;
}

/** Go on with the stream that the address names. */
function followAddress() {
  const id = location.hash.slice(1);
  if (current === null && STREAM_ID.test(id)) watch((options) => resume(id, options));
}

find("request").addEventListener("submit", (event) => {
  event.preventDefault();
  if (current === null) watch((options) => generate(form.body, options));
});
find("stop").addEventListener("click", () => current && stop(current));
find("cut").addEventListener("click", () => current?.stream.cut());
find("copy").addEventListener("click", copy);
window.addEventListener("hashchange", followAddress);
followAddress();
form.load().catch((error) => say(`The models could not be loaded: ${error.message}`));
