/** What can end a stream, and what only ends one of its connections. */

const REFUSAL_CHARACTERS_MAX = 65_536;
const RETRYABLE_STATUSES = [408, 425, 429, 500, 502, 503, 504];

/** What ended a stream, or kept it from beginning. */
export class SluiceError extends Error {
  /**
   * @param {string} code The server's, or one of the client's own: `gave_up`, `invalid_event`, `event_too_large`,
   *   `http_error`, `cancelled`.
   * @param {string} message For people.
   * @param {object} [more]
   * @param {boolean} [more.retryable] Whether the same request may succeed later, under another Idempotency-Key.
   * @param {number|null} [more.status] HTTP's, or what it would have been while headers were not sent.
   * @param {string|null} [more.requestId] For the server's operator.
   * @param {number|null} [more.retryAfterMs] Not before then.
   * @param {unknown} [more.cause]
   */
  constructor(code, message, { retryable = false, status = null, requestId = null, retryAfterMs = null, cause } = {}) {
    super(message, { cause });
    Object.assign(this, { name: "SluiceError", code, retryable, status, requestId, retryAfterMs });
  }
}

/** Why a connection ended before its stream; the next one goes on. Never reaches the caller but as a cause. */
export class Lost extends Error {
  /**
   * @param {string} reason
   * @param {object} [more]
   * @param {number|null} [more.delayMs] When the server wants the client back.
   * @param {number} [more.floorMs] Not before then.
   * @param {boolean} [more.startOver] What came so far is void.
   * @param {unknown} [more.cause]
   */
  constructor(reason, { delayMs = null, floorMs = 0, startOver = false, cause } = {}) {
    super(reason, { cause });
    Object.assign(this, { name: "Lost", reason, delayMs, floorMs, startOver });
  }
}

/**
 * The error that an answer other than a stream is.
 *
 * @param {Response} response
 * @param {AsyncIterable<Uint8Array>} body
 * @returns {Promise<SluiceError>}
 */
export async function refusal(response, body) {
  const { status, headers } = response;
  const said = errorIn(await beginning(body));
  return new SluiceError(said?.code ?? "http_error", said?.message ?? `HTTP ${status} instead of a stream.`, {
    // A page instead of a stream, as a captive portal sends it, is not the server's answer.
    retryable: said?.retryable ?? (response.ok || RETRYABLE_STATUSES.includes(status)),
    status,
    requestId: headers.get("X-Request-ID"),
    retryAfterMs: retryAfterMs(headers.get("Retry-After")),
  });
}

async function beginning(body) {
  const utf8 = new TextDecoder();
  let text = "";
  try {
    for await (const bytes of body) {
      text += utf8.decode(bytes, { stream: true });
      if (text.length > REFUSAL_CHARACTERS_MAX) break;
    }
  } catch (error) {
    // The status is there, and says enough.
    if (!(error instanceof Lost)) throw error;
  }
  return text;
}

function errorIn(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return undefined;
  }
}

/** Seconds, or a date; null for neither. */
function retryAfterMs(value) {
  if (value === null) return null;
  if (/^[0-9]+$/.test(value)) return Number(value) * 1000;
  const ms = Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}
