#!/usr/bin/env node
// Streams an answer from POST /api/v1/generate with fetch alone. Node 18 or newer; all but the last part also runs in a
// browser.
//
//     SLUICE_URL=http://127.0.0.1:8080 node stream.mjs "Why is the sky blue?"
//
// Prints the text as it comes. Exit code 1 for anything but a complete answer: a stream ends in exactly one `done` or
// `error` event, so one that just stops is incomplete, whatever text has come.

// Sluice sends a heartbeat every 15 s, so twice that without a byte means that the connection is dead.
const SILENCE_MS_MAX = 30_000;

// The lines of a body, each as soon as it is complete. TextDecoderStream keeps the first bytes of a character until the
// others come.
async function* lines(body, onData) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    onData();
    // A CR at the very end may be half of a CRLF, so it waits for what follows.
    const complete = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = complete.pop();
    yield* complete;
  }
}

// Name and data of each event. Comments, such as heartbeats, and other fields are passed over.
async function* events(lines) {
  let name = "";
  let data = [];
  for await (const line of lines) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") {
      name = value;
    } else if (field === "data") {
      data.push(value);
    } else if (line === "") {
      // An empty line ends the event.
      if (data.length > 0) yield { name: name || "message", data: data.join("\n") };
      name = "";
      data = [];
    }
  }
}

// The answer's tokens; throws unless the answer is complete.
async function* tokens(url, prompt) {
  const abort = new AbortController();
  const silence = setTimeout(() => abort.abort(new Error(`no byte for ${SILENCE_MS_MAX} ms`)), SILENCE_MS_MAX);
  try {
    const response = await fetch(`${url}/api/v1/generate`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify({ prompt, stream: true }),
      signal: abort.signal,
    });
    // Nothing has been streamed yet, so an error is a plain HTTP answer.
    if (!response.ok) throw new Error(`HTTP ${response.status}: ${await response.text()}`);
    for await (const { name, data } of events(lines(response.body, () => silence.refresh()))) {
      const payload = JSON.parse(data);
      if (name === "token" && payload.type === "content") yield payload.token;
      else if (name === "error") throw new Error(`${payload.code}: ${payload.message}`);
      else if (name === "done") return;
    }
    throw new Error("the stream stopped without saying how it ended");
  } finally {
    clearTimeout(silence);
  }
}

const url = (process.env.SLUICE_URL ?? "http://127.0.0.1:8080").replace(/\/$/, "");
const prompt = process.argv.slice(2).join(" ") || "Why is the sky blue?";
try {
  for await (const token of tokens(url, prompt)) process.stdout.write(token);
  process.stdout.write("\n");
} catch (error) {
  console.error(`\nerror: ${error.message}${error.cause ? ` (${error.cause.message})` : ""}`);
  process.exitCode = 1;
}
