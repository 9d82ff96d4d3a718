import assert from "node:assert/strict";
import test from "node:test";

import { SseDecoder } from "../../../app/api/static/sluice/sse.js";

const utf8 = new TextEncoder();
const decoder = () => new SseDecoder(10_000);
const frame = (data, event = "message", id = null) => ({ event, data, id });

/** What comes of `text` in two pieces, wherever it is cut, and in single bytes. */
function inEveryWay(text) {
  const bytes = utf8.encode(text);
  const ways = [];
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const feed = decoder();
    ways.push([...feed.decode(bytes.subarray(0, cut)), ...feed.decode(bytes.subarray(cut))]);
  }
  const feed = decoder();
  ways.push([...bytes].flatMap((byte) => feed.decode(Uint8Array.of(byte))));
  return ways;
}

const CASES = {
  "lines in LF": ["data: a\n\ndata: b\n\n", [frame("a"), frame("b")]],
  "lines in CR": ["data: a\r\rdata: b\r\r", [frame("a"), frame("b")]],
  "lines in CRLF": ["data: a\r\n\r\ndata: b\r\n\r\n", [frame("a"), frame("b")]],
  "line ends that change": ["data: a\r\n\n\ndata: b\r\r\ndata: c\n\r", [frame("a"), frame("b"), frame("c")]],
  "characters of two to four bytes": ["data: ü水🌊\n\n", [frame("ü水🌊")]],
  "separators that are no line ends": ["data: a\u2028b\u2029c\u0085d\n\n", [frame("a\u2028b\u2029c\u0085d")]],
  "a BOM at the beginning": ["\ufeffdata: a\n\n", [frame("a")]],
  "a BOM elsewhere": ["data: a\n\n\ufeffdata: b\n\ndata: c\n\n", [frame("a"), frame("c")]],
  "data of several lines": ["data: a\ndata:\ndata: b\n\n", [frame("a\n\nb")]],
  "a name and an id": ["event: token\nid: s.0.1\ndata: a\n\ndata: b\n\n", [frame("a", "token", "s.0.1"), frame("b")]],
  "one space taken away": ["data:a\n\ndata:  b\n\n", [frame("a"), frame(" b")]],
  "comments and unknown fields": [": ping\n\nfoo: bar\ndata\n: data: x\n\n", [frame("")]],
  "a name without data": ["event: token\n\ndata: a\n\n", [frame("a")]],
  "an id with a NUL": ["id: a\0b\ndata: a\n\n", [frame("a")]],
  "an event that the end cuts off": ["data: a\n\nid: x\ndata: b\n", [frame("a")]],
};

for (const [name, [text, expected]] of Object.entries(CASES)) {
  test(`it reads ${name}, wherever the bytes are split`, () => {
    for (const frames of inEveryWay(text)) assert.deepEqual(frames, expected);
  });
}

test("a CR ends its line at once, without waiting for an LF", () => {
  assert.deepEqual(decoder().decode(utf8.encode("data: a\r\r")), [frame("a")]);
});

test("it keeps the last retry, if that is a number", () => {
  const feed = decoder();
  feed.decode(utf8.encode("retry: 250\nretry: 1e3\nretry: -1\nretry:\n"));
  assert.equal(feed.retryMs, 250);
});

test("bytes that are not UTF-8 become replacement characters", () => {
  assert.deepEqual(decoder().decode(Uint8Array.of(...utf8.encode("data: "), 0xff, ...utf8.encode("\n\n"))), [
    frame("\ufffd"),
  ]);
});

test("an event has a bound, whether in one line or in many", () => {
  const tooLarge = { name: "SluiceError", code: "event_too_large" };
  assert.throws(() => decoder().decode(utf8.encode(`data: ${"x".repeat(10_000)}`)), tooLarge);
  assert.throws(() => decoder().decode(utf8.encode("data: x\n".repeat(2_000))), tooLarge);
  assert.equal(decoder().decode(utf8.encode("data: x\n\n".repeat(20_000))).length, 20_000);
});
