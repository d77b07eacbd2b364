import { useEffect, useState } from 'preact/hooks';
import { ask } from './answer.js';
import { AnswerBody } from './message.jsx';

// The same message to two models at the same time.
export function Compare({ models }) {
  const tuned = models.find((m) => m.adapter || m.job) ?? models[0];
  const [left, setLeft] = useState(null), [right, setRight] = useState(null);
  const names = [left ?? tuned?.base ?? '', right ?? tuned?.name ?? ''];
  const [text, setText] = useState('');
  const [asked, setAsked] = useState('');
  const [answers, setAnswers] = useState([null, null]);
  const [running, setRunning] = useState(null);

  const send = async (event) => {
    event.preventDefault();
    const said = text.trim();
    if (!said || running) return;
    const controller = new AbortController();
    setRunning(controller);
    setAsked(said);
    setAnswers([null, null]);
    await Promise.all(names.map((name, i) =>
      ask(name, [{ role: 'user', content: said }], { max_tokens: 256, temperature: 0 }, controller.signal,
          (grown) => setAnswers((old) => old.map((other, j) => (i === j ? grown : other))))));
    setRunning(null);
  };
  useEffect(() => {
    const act = (event) => event.detail === 'stop' && running?.abort();
    addEventListener('thimble', act);
    return () => removeEventListener('thimble', act);
  });
  const column = (i, label, change) => (
    <section class="column" aria-label={label}>
      <label class="model">{label}
        <select value={names[i]} onChange={(e) => change(e.currentTarget.value)} disabled={!!running}>
          {models.map((m) => <option value={m.name}>{m.name}{m.adapter ? ' · tuned' : ''}</option>)}
        </select>
      </label>
      <div class="answer" aria-busy={answers[i]?.state === 'running'}>
        {answers[i] ? <AnswerBody message={answers[i]} /> : <p class="dim">{running ? 'Waiting…' : 'The answer comes here.'}</p>}
      </div>
    </section>
  );
  return (
    <div class="view compare">
      <h1>Side by side</h1>
      <p class="dim">One message, two models, both greedy and at the same time. Each gets this message alone.</p>
      <form class="composer" onSubmit={send}>
        <textarea rows={1} value={text} aria-label="Message to both" placeholder="Message to both" ref={(e) => { if (e && !e.dataset.seen) { e.dataset.seen = '1'; e.focus(); } }}
                  onInput={(e) => setText(e.currentTarget.value)}
                  onKeyDown={(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) send(e); }} />
        {running ? <button type="button" class="stop" onClick={() => running.abort()}>Stop</button> : <button disabled={!text.trim()}>Ask both</button>}
      </form>
      {asked && <p class="asked"><span class="bubble">{asked}</span></p>}
      <div class="columns">
        {column(0, 'Base', setLeft)}
        {column(1, 'Tuned', setRight)}
      </div>
    </div>
  );
}
