import { Fragment } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { ask, emptyAnswer, lastMessage, toMessages } from './answer.js';
import { getJson } from './api.js';
import { conversations, forget, keep, newConversation, setting } from './history.js';
import { AnswerBody, Asked } from './message.jsx';

const titleOf = (conversation) => conversation.title || 'New conversation';

const jobOf = (model) => getJson(`/thimble/jobs/${encodeURIComponent(model)}`);

// What the server says of the model's use case; null until it has.
function useJob(model) {
  const [job, setJob] = useState(null);
  useEffect(() => {
    let gone = false;
    setJob(null);
    if (model) jobOf(model).then((j) => gone || setJob(j), () => {});
    return () => { gone = true; };
  }, [model]);
  return job?.name === model ? job : null;
}

function Tools({ job }) {
  if (!job?.tools.length) return null;
  return (
    <details class="job-tools">
      <summary>{job.tools.length} tools</summary>
      <ul>
        {job.tools.map(({ function: tool }) => (
          <li><code>{tool.name}</code><span class="dim">{tool.description}</span>
            <span class="parameters">{Object.keys(tool.parameters.properties ?? {}).map((name) => (
              <span class={(tool.parameters.required ?? []).includes(name) ? 'needed' : ''}>{name}</span>))}</span></li>
        ))}
      </ul>
    </details>
  );
}

function Settings({ settings, change }) {
  const field = (name, label, attributes) => (
    <label>{label}<input value={settings[name] ?? ''} onInput={(e) => change({ ...settings, [name]: e.currentTarget.value })} {...attributes} /></label>
  );
  return (
    <details class="settings">
      <summary>Settings</summary>
      <div class="fields">
        {field('temperature', 'Temperature', { type: 'number', min: 0, max: 2, step: 0.1, placeholder: 'the model’s own' })}
        {field('max_tokens', 'Most tokens', { type: 'number', min: 1, step: 1, placeholder: 'the server’s own' })}
        {field('system', 'System message', { placeholder: 'the job’s own' })}
      </div>
    </details>
  );
}

const optionsOf = (settings) => {
  const options = {};
  if (settings.temperature) options.temperature = Number(settings.temperature);
  if (settings.max_tokens) options.max_tokens = Number(settings.max_tokens);
  return options;
};

export function Chat({ models, online }) {
  const [all, setAll] = useState(conversations);
  const [id, setId] = useState(() => setting('open'));
  const [fresh, setFresh] = useState(() => newConversation(''));
  const [text, setText] = useState('');
  const [settings, setSettings] = useState(() => setting('sampling') ?? {});
  const [listOpen, setListOpen] = useState(false);
  const [running, setRunning] = useState(null); // an AbortController
  const [atEnd, setAtEnd] = useState(true);
  const composer = useRef(null), thread = useRef(null);
  const current = all.find((one) => one.id === id) ?? fresh;
  const model = models.some((m) => m.name === current.model) ? current.model : models[0]?.name ?? '';
  const job = useJob(model);
  const results = useMemo(() => Object.fromEntries(current.messages.filter((m) => m.role === 'tool').map((m) => [m.call, m.content])), [current]);

  const put = (conversation, store = true) => {
    if (store) keep(conversation);
    setAll((known) => [conversation, ...known.filter((one) => one.id !== conversation.id)].sort((a, b) => b.changed - a.changed));
  };
  const choose = (next) => {
    setId(next);
    setting('open', next);
    setListOpen(false);
    setAtEnd(true);
    composer.current?.focus();
  };
  const start = () => {
    if (running) return;
    setFresh(newConversation(model));
    choose(null);
  };
  const remove = (conversation) => {
    forget(conversation.id);
    setAll((known) => known.filter((one) => one.id !== conversation.id));
    if (conversation.id === id) start();
  };

  const run = async (messages) => {
    const controller = new AbortController();
    const title = current.title || messages.find((m) => m.role === 'user')?.content.slice(0, 60) || '';
    let alone = !!job?.single_messages;
    const withAnswer = (answer) => [...messages, alone ? { ...answer, alone } : answer];
    let conversation = { ...current, model, title, changed: Date.now(), messages: withAnswer(emptyAnswer(model)) };
    put(conversation);
    choose(conversation.id);
    setRunning(controller);
    if (!job) alone = await jobOf(model).then((j) => j.single_messages, () => false);
    const asked = toMessages(alone ? lastMessage(messages) : messages);
    if (settings.system) asked.unshift({ role: 'system', content: settings.system });
    let kept = 0, scheduled = false;
    const answer = await ask(model, asked, optionsOf(settings), controller.signal, (grown) => {
      conversation = { ...conversation, messages: withAnswer(grown) };
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(() => {
        scheduled = false;
        const store = performance.now() - kept > 1000;
        if (store) kept = performance.now();
        put(conversation, store);
      });
    });
    setRunning(null);
    conversation = { ...conversation, messages: withAnswer(answer) };
    requestAnimationFrame(() => put(conversation));
  };
  const send = (event) => {
    event?.preventDefault();
    const said = text.trim();
    if (!said || running || !model) return;
    setText('');
    run([...current.messages, { role: 'user', content: said }]);
  };
  const stop = () => running?.abort();
  const retry = () => {
    const last = current.messages.findLastIndex((m) => m.role !== 'assistant');
    run(current.messages.slice(0, last + 1));
  };
  const giveResult = (index) => (call, result) => {
    const messages = [...current.messages.slice(0, index + 1), ...current.messages.slice(index + 1).filter((m) => m.role === 'tool'),
                      { role: 'tool', call: call.id, content: result }];
    const calls = current.messages[index].calls;
    const given = messages.filter((m) => m.role === 'tool').map((m) => m.call);
    if (calls.every((c) => given.includes(c.id))) run(messages);
    else put({ ...current, messages });
  };

  useEffect(() => {
    const act = (event) => {
      if (event.detail === 'new') start();
      if (event.detail === 'focus') composer.current?.focus();
      if (event.detail === 'stop') stop();
    };
    addEventListener('thimble', act);
    return () => removeEventListener('thimble', act);
  });
  useEffect(() => { composer.current?.focus(); }, []);
  useEffect(() => {
    const element = thread.current;
    if (element && atEnd) element.scrollTop = element.scrollHeight;
  }, [current, atEnd]);
  useEffect(() => {
    const element = composer.current;
    if (!element) return;
    element.style.height = 'auto';
    element.style.height = `${Math.min(element.scrollHeight, 220)}px`;
  }, [text]);

  const last = current.messages.at(-1);
  return (
    <div class="chat">
      <aside class={listOpen ? 'list open' : 'list'} aria-label="Conversations">
        <button class="wide" onClick={start} disabled={!!running}>New conversation</button>
        <ul>
          {all.map((one) => (
            <li class={one.id === current.id ? 'chosen' : ''}>
              <button class="entry" aria-current={one.id === current.id} onClick={() => running || choose(one.id)} title={titleOf(one)}>{titleOf(one)}</button>
              <button class="quiet small remove" aria-label={`Delete “${titleOf(one)}”`} disabled={!!running} onClick={() => remove(one)}>×</button>
            </li>
          ))}
        </ul>
        <p class="dim note">Kept in this browser only.</p>
      </aside>
      <section class="conversation">
        <div class="bar">
          <button class="quiet only-narrow" aria-expanded={listOpen} onClick={() => setListOpen(!listOpen)}>Conversations</button>
          <label class="model">Model
            <select value={model} disabled={!!running} onChange={(e) => {
              const changed = { ...current, model: e.currentTarget.value };
              if (current === fresh) setFresh(changed); else put(changed);
            }}>
              {models.map((m) => <option value={m.name}>{m.name}{m.adapter ? ' · tuned' : ''}</option>)}
            </select>
          </label>
          <Tools job={job} />
          <Settings settings={settings} change={(s) => { setSettings(s); setting('sampling', s); }} />
        </div>
        <div class="thread" ref={thread} tabIndex={0} role="log" aria-label="Messages" aria-live="off"
             onScroll={(e) => { const t = e.currentTarget; setAtEnd(t.scrollHeight - t.scrollTop - t.clientHeight < 60); }}>
          {!current.messages.length && (
            <div class="welcome">
              <h1>{models.find((m) => m.name === model)?.description || 'Ask something'}</h1>
              <p class="dim">Nothing leaves this machine. Enter sends, Shift+Enter makes a line, Esc stops; ? shows all keys.</p>
            </div>
          )}
          {current.messages.map((message, i) => message.role === 'tool' ? null : message.role === 'user' ? (
            <Fragment key={i}>
              {i > 0 && current.messages[i + 1]?.alone && <p class="alone dim">What is above was not sent</p>}
              <Asked message={message} disabled={!!running}
                     onEdit={(changed) => run([...current.messages.slice(0, i), { role: 'user', content: changed }])} />
            </Fragment>
          ) : (
            <article key={i} class="answer" aria-label={`Answer of ${message.model}`} aria-busy={message.state === 'running'}>
              <AnswerBody message={message} results={results}
                          onResult={!running && message.state === 'done' ? giveResult(i) : undefined} />
              {i === current.messages.length - 1 && message.state !== 'running' && (
                <div class="tools"><button class="quiet small" onClick={retry}>Retry</button></div>
              )}
            </article>
          ))}
        </div>
        <p class="hidden" role="status">{running ? 'Answering' : last?.role === 'assistant' ? `Answered: ${last.calls.map((c) => `call of ${c.name}`).join(', ')} ${last.content}` : ''}</p>
        {job?.single_messages && <p class="dim alone-note" id="single">{model} learned from single messages: each is answered on its own, without what was said before.</p>}
        <form class="composer" onSubmit={send}>
          <textarea ref={composer} aria-describedby={job?.single_messages ? 'single' : undefined} rows={1} value={text} aria-label="Message" placeholder={online ? 'Message' : 'The server can’t be reached'}
                    onInput={(e) => setText(e.currentTarget.value)}
                    onKeyDown={(e) => { if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) send(e); }} />
          {running ? <button type="button" class="stop" onClick={stop}>Stop</button>
                   : <button disabled={!text.trim() || !model}>Send</button>}
        </form>
      </section>
    </div>
  );
}
