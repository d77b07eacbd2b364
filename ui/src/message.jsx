import { useState } from 'preact/hooks';
import { Markdown } from './markdown.jsx';

function pretty(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // not whole yet
  }
}

function Arguments({ text }) {
  const value = pretty(text);
  if (!value || typeof value !== 'object') return <pre class="raw">{text}</pre>;
  const names = Object.keys(value);
  if (!names.length) return <p class="dim">no arguments</p>;
  return (
    <dl class="arguments">
      {names.map((name) => (
        <div><dt>{name}</dt><dd><code>{typeof value[name] === 'string' ? value[name] : JSON.stringify(value[name], null, 1)}</code></dd></div>
      ))}
    </dl>
  );
}

function Badge({ call, running }) {
  if (running) return <span class="badge">writing…</span>;
  if (call.valid === undefined) return <span class="badge">not checked</span>;
  return call.valid ? <span class="badge good" title="The arguments hold to the tool’s schema">valid</span>
                    : <span class="badge bad">invalid</span>;
}

function Call({ call, running, result, onResult }) {
  const [open, setOpen] = useState(false);
  const [text, setText] = useState('');
  const send = (event) => {
    event.preventDefault();
    setOpen(false);
    onResult(call, text);
  };
  return (
    <section class="call" aria-label={`Call of the tool ${call.name}`}>
      <header><span class="call-name">{call.name}</span><Badge call={call} running={running} /></header>
      <Arguments text={call.arguments} />
      {call.problems?.map((p) => <p class="problem">{p.place && <code>{p.place}</code>} {p.what}</p>)}
      {result !== undefined && <div class="result"><span class="label">Result</span><pre>{result}</pre></div>}
      {onResult && result === undefined && !open && !running && (
        <button class="quiet small" onClick={() => setOpen(true)}>Give a result…</button>
      )}
      {open && (
        <form onSubmit={send}>
          <textarea aria-label={`What ${call.name} returns`} rows={2} value={text} ref={(e) => e?.focus()}
                    onInput={(e) => setText(e.currentTarget.value)} placeholder="What the tool returns" />
          <div class="row"><button class="small">Send result</button><button type="button" class="quiet small" onClick={() => setOpen(false)}>Cancel</button></div>
        </form>
      )}
    </section>
  );
}

function Figures({ message }) {
  const parts = [];
  if (message.usage) {
    const tokens = message.usage.completion_tokens;
    parts.push(`${tokens} tokens`);
    if (message.milliseconds) parts.push(`${(message.milliseconds / 1000).toFixed(2)} s`, `${(tokens / message.milliseconds * 1000).toFixed(0)} tokens/s`);
    const cached = message.usage.prompt_tokens_details?.cached_tokens;
    if (cached) parts.push(`${cached} of ${message.usage.prompt_tokens} prompt tokens from the cache`);
  }
  if (message.finish === 'length') parts.push('cut at the token limit');
  if (message.state === 'stopped') parts.push('stopped');
  return parts.length ? <p class="figures">{parts.join(' · ')}</p> : null;
}

export function AnswerBody({ message, results = {}, onResult }) {
  const running = message.state === 'running';
  const empty = !message.content && !message.calls.length;
  return (
    <>
      {message.reasoning && <p class="reasoning"><span class="label">Plan</span> {message.reasoning}</p>}
      {message.content && <Markdown text={message.content} />}
      {message.calls.map((call, i) => (
        <Call key={call.id} call={call} running={running && i === message.calls.length - 1} result={results[call.id]} onResult={onResult} />
      ))}
      {running && empty && <p class="waiting" aria-label="The answer is being made"><i /><i /><i /></p>}
      {message.state === 'done' && empty && <p class="dim">The model said nothing.</p>}
      {message.error && <p class="problem" role="alert">{message.error}</p>}
      <Figures message={message} />
    </>
  );
}

export function Asked({ message, disabled, onEdit }) {
  const [draft, setDraft] = useState(null);
  const send = (event) => {
    event?.preventDefault();
    const text = draft.trim();
    setDraft(null);
    if (text) onEdit(text);
  };
  if (draft === null)
    return (
      <article class="asked" aria-label="You">
        <div class="bubble">{message.content}</div>
        <div class="tools"><button class="quiet small" disabled={disabled} onClick={() => setDraft(message.content)}>Edit</button></div>
      </article>
    );
  return (
    <form class="asked editing" onSubmit={send}>
      <textarea aria-label="Your message" rows={3} value={draft} onInput={(e) => setDraft(e.currentTarget.value)}
                ref={(e) => { if (e && document.activeElement !== e && !e.dataset.seen) { e.dataset.seen = '1'; e.focus(); } }}
                onKeyDown={(e) => {
                  if (e.key === 'Enter' && !e.shiftKey) send(e);
                  if (e.key === 'Escape') { e.stopPropagation(); setDraft(null); }
                }} />
      <div class="row end"><button type="button" class="quiet small" onClick={() => setDraft(null)}>Cancel</button><button class="small">Send again</button></div>
    </form>
  );
}
