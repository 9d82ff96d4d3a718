/** What is to be asked: the form, as the body of a request and as a command for a terminal. */

const SIMULATOR = "simulator";

export class RequestForm {
  #form;
  #baseUrl;

  /** @param {HTMLFormElement} form  @param {string} baseUrl */
  constructor(form, baseUrl) {
    this.#form = form;
    this.#baseUrl = baseUrl;
    for (const name of ["tokens", "pace", "seed"]) together(this.#field(name), this.#field(`${name}-range`));
    this.#field("model").addEventListener("change", () => this.#offer());
    this.#field("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      form.requestSubmit();
    });
  }

  /** Fill in the models that the server has. @throws {Error} It does not say. */
  async load() {
    const response = await fetch(`${this.#baseUrl}/v1/models`);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const { data } = await response.json();
    this.#field("model").replaceChildren(...data.map(({ id }) => new Option(id, id)));
    this.#offer();
  }

  /** What POST /api/v1/generate takes. */
  get body() {
    const body = { prompt: this.#field("prompt").value };
    const model = this.#field("model").value;
    if (model) body.model = model;
    // An empty field leaves the simulator's own default; three of them also suit a server that takes no such options.
    const simulator = {
      seed: number(this.#field("seed")),
      tokens: number(this.#field("tokens")),
      tokens_per_second: number(this.#field("pace")),
    };
    if (model === SIMULATOR && Object.values(simulator).some((value) => value !== undefined)) body.simulator = simulator;
    return body;
  }

  /** The same for a POSIX shell. */
  get curl() {
    const url = new URL(`${this.#baseUrl}/api/v1/generate`, location.href).href;
    const body = JSON.stringify({ ...this.body, stream: true });
    return `curl -N ${quoted(url)} -H 'Content-Type: application/json' -d ${quoted(body)}`;
  }

  #offer() {
    this.#field("simulator").hidden = this.#field("model").value !== SIMULATOR;
  }

  #field(id) {
    return this.#form.querySelector(`#${id}`);
  }
}

/** A field and a slider that show one value; the slider does not reach all that the field takes. */
function together(field, range) {
  range.addEventListener("input", () => (field.value = range.value));
  field.addEventListener("input", () => {
    if (field.value !== "") range.value = field.value;
  });
}

function number(field) {
  return field.value === "" ? undefined : field.valueAsNumber;
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
