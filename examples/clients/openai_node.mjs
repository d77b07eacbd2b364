// openai-node: npm install openai; node openai_node.mjs. Streams a call whose arguments fit their schema.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: (process.env.THIMBLE ?? "http://127.0.0.1:8080") + "/v1",
  apiKey: process.env.THIMBLE_KEY ?? "none",
});
const model = process.env.MODEL ?? (await client.models.list()).data[0].id;

const tools = [{
  type: "function",
  function: {
    name: "set_alarm",
    description: "Sets an alarm.",
    strict: true,
    parameters: {
      type: "object",
      required: ["hour", "minute"],
      additionalProperties: false,
      properties: {
        hour: { type: "integer", minimum: 0, maximum: 23 },
        minute: { type: "integer", minimum: 0, maximum: 59 },
      },
    },
  },
}];

const stream = client.chat.completions.stream({
  model,
  messages: [{ role: "user", content: "Wake me at half past six." }],
  tools,
  tool_choice: "required",
  parallel_tool_calls: false,
  temperature: 0,
});
const final = await stream.finalChatCompletion();
const call = final.choices[0].message.tool_calls[0];
console.log(call.function.name, JSON.parse(call.function.arguments));

const events = await client.responses.create({
  model, input: "Say hello.", max_output_tokens: 20, temperature: 0, stream: true,
});
for await (const event of events) {
  if (event.type === "response.output_text.delta") process.stdout.write(event.delta);
}
console.log();
