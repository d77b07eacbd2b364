// Talking to the server. The key is kept for this tab only.
export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status; // 0: the server can't be reached
  }
}

const kKey = 'thimble.key';
const askers = new Set();
export const hasKey = () => !!sessionStorage.getItem(kKey);
export const setKey = (key) => (key ? sessionStorage.setItem(kKey, key) : sessionStorage.removeItem(kKey));
// Calls `asker` whenever the server wants a key; gives what ends that.
export function onKeyWanted(asker) {
  askers.add(asker);
  return () => askers.delete(asker);
}

export async function request(path, { method = 'GET', body, signal } = {}) {
  const headers = {};
  const key = sessionStorage.getItem(kKey);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Failure('The server can’t be reached.', 0);
  }
  if (response.ok) return response;
  if (response.status === 401) askers.forEach((ask) => ask());
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // not an answer of ours
  }
  throw new Failure(message || `The server answered ${response.status}.`, response.status);
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const getText = async (path, options) => (await request(path, options)).text();

// The events of a stream as objects, until [DONE]. A stream that ends before is a failure.
export async function* events(path, body, signal) {
  const response = await request(path, { method: 'POST', body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Failure('The connection was lost in the middle of the answer.', 0);
    }
    if (piece.done) throw new Failure('The connection was lost in the middle of the answer.', 0);
    rest += piece.value;
    for (let end; (end = rest.indexOf('\n\n')) >= 0; rest = rest.slice(end + 2)) {
      if (!rest.startsWith('data:')) continue; // a comment: the server lives
      const data = rest.slice(0, end).replace(/^data: ?/, '');
      if (data === '[DONE]') return;
      const event = JSON.parse(data);
      if (event.error) throw new Failure(event.error.message, 500);
      yield event;
    }
  }
}
