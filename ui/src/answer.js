// One answer of a model, as it grows.
import { events, getJson } from './api.js';

export const emptyAnswer = (model) => ({ role: 'assistant', model, content: '', reasoning: '', calls: [], state: 'running' });

// A conversation in the API's form. Plans and failed answers are not the model's business any more.
export function toMessages(messages) {
  const out = [];
  for (const message of messages) {
    if (message.role !== 'assistant') {
      out.push(message.role === 'tool' ? { role: 'tool', tool_call_id: message.call, content: message.content }
                                       : { role: message.role, content: message.content });
    } else if (message.content || message.calls.length) {
      const one = { role: 'assistant', content: message.content || null };
      if (message.calls.length)
        one.tool_calls = message.calls.map((call) => ({
          id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments || '{}' },
        }));
      out.push(one);
    }
  }
  return out;
}

// The user's last message and what came of it: all that says something to a model that learned from single messages.
export const lastMessage = (messages) => messages.slice(Math.max(0, messages.findLastIndex((m) => m.role === 'user')));

// Asks, and calls `grew` with a new object at each piece. Never throws: what goes wrong stands in the answer.
export async function ask(model, messages, options, signal, grew) {
  let answer = emptyAnswer(model);
  const start = performance.now();
  const tell = (change) => grew((answer = { ...answer, ...change }));
  try {
    const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...options };
    for await (const event of events('/v1/chat/completions', body, signal)) {
      if (event.usage) tell({ usage: event.usage });
      const choice = event.choices[0];
      if (!choice) continue;
      if (choice.finish_reason) tell({ finish: choice.finish_reason });
      const { content, reasoning_content: reasoning, tool_calls: calls } = choice.delta;
      const first = answer.first ?? performance.now() - start;
      if (reasoning) tell({ reasoning: answer.reasoning + reasoning, first });
      if (content) tell({ content: answer.content + content, first });
      for (const piece of calls ?? []) {
        const known = answer.calls.slice();
        const old = known[piece.index] ?? { id: piece.id, name: '', arguments: '' };
        known[piece.index] = {
          id: old.id,
          name: old.name + (piece.function.name ?? ''),
          arguments: old.arguments + (piece.function.arguments ?? ''),
        };
        tell({ calls: known, first });
      }
    }
    tell({ state: 'done' });
  } catch (error) {
    if (error.name === 'AbortError') tell({ state: 'stopped' });
    else tell({ state: 'failed', error: error.message });
  }
  tell({ milliseconds: performance.now() - start });
  if (answer.calls.length) tell({ calls: await check(model, answer.calls) });
  return answer;
}

// The calls with what their tools' schemas say of them. The server's validator decides, not the grammar that made them.
async function check(model, calls) {
  try {
    const body = { model, calls: calls.map(({ name, arguments: text }) => ({ name, arguments: text })) };
    const { calls: checked } = await getJson('/thimble/check-calls', { method: 'POST', body });
    return calls.map((call, i) => ({ ...call, valid: checked[i].valid, problems: checked[i].problems }));
  } catch {
    return calls; // nobody could say
  }
}
