// The AI SDK's own providers, streaming: `node ai_sdk.mjs compatible|openai|anthropic URL MODEL`.
//
// Prints what came as JSON, and ends with exit code 1 where the SDK told of an error.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [surface, url, model] = process.argv.slice(2);
const baseURL = `${url}/v1`;
const apiKey = "unused";
const models = {
  compatible: () => createOpenAICompatible({ name: "sluice", baseURL, includeUsage: true }).chatModel(model),
  openai: () => createOpenAI({ baseURL, apiKey }).chat(model),
  anthropic: () => createAnthropic({ baseURL, apiKey })(model),
};
const weather = tool({
  description: "Tells the weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async () => "Rain.",
});

globalThis.AI_SDK_LOG_WARNINGS = false;
let failure;
const answer = streamText({
  model: models[surface](),
  prompt: "Hello",
  maxRetries: 0,
  maxOutputTokens: 2000,
  tools: { weather },
  stopWhen: stepCountIs(3),
  onError: ({ error }) => (failure = error),
});
await answer.consumeStream();
if (failure) {
  console.error(String(failure.message ?? failure));
  process.exit(1);
}
const steps = await answer.steps;
console.log(
  JSON.stringify({ texts: steps.map((step) => step.text), output_tokens: steps.at(-1).usage.outputTokens }),
);
