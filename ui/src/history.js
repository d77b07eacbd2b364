// Conversations, kept in this browser and nowhere else.
const kPrefix = 'thimble.chat.';

export const newConversation = (model) => ({ id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), model, title: '', changed: Date.now(), messages: [] });

export function conversations() {
  const all = [];
  for (let i = 0; i < localStorage.length; ++i) {
    const name = localStorage.key(i);
    if (!name.startsWith(kPrefix)) continue;
    try {
      const one = JSON.parse(localStorage.getItem(name));
      // The page was closed in the middle of an answer.
      one.messages = one.messages.map((m) => (m.state === 'running' ? { ...m, state: 'stopped' } : m));
      all.push(one);
    } catch {
      localStorage.removeItem(name);
    }
  }
  return all.sort((a, b) => b.changed - a.changed);
}

// Where the browser has no room left, the oldest go.
export function keep(conversation) {
  const text = JSON.stringify(conversation);
  for (;;) {
    try {
      localStorage.setItem(kPrefix + conversation.id, text);
      return;
    } catch {
      const others = conversations().filter((other) => other.id !== conversation.id);
      if (!others.length) return;
      forget(others.at(-1).id);
    }
  }
}

export const forget = (id) => localStorage.removeItem(kPrefix + id);

export function setting(name, value) {
  const key = `thimble.${name}`;
  if (value === undefined) {
    try {
      return JSON.parse(localStorage.getItem(key));
    } catch {
      return null;
    }
  }
  localStorage.setItem(key, JSON.stringify(value));
  return value;
}
