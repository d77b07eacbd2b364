import { render } from 'preact';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { getJson, onKeyWanted, setKey } from './api.js';
import { Chat } from './chat.jsx';
import { Compare } from './compare.jsx';
import { setting } from './history.js';
import { Live } from './live.jsx';
import { Models } from './models.jsx';
import { Runs } from './runs.jsx';
import './page.css';

const kViews = [['chat', 'Chat'], ['compare', 'Compare'], ['runs', 'Runs'], ['live', 'Live'], ['models', 'Models']];
const kKeys = [
  ['Enter', 'send'], ['Shift+Enter', 'a new line'], ['Esc', 'stop the answer'], ['/', 'to the message field'],
  ['N', 'new conversation'], ['1 … 5', 'Chat, Compare, Runs, Live, Models'], ['T', 'light, dark, as the system'], ['?', 'this list'],
];
const viewNow = () => kViews.find(([name]) => `#${name}` === location.hash)?.[0] ?? 'chat';
const say = (what) => dispatchEvent(new CustomEvent('thimble', { detail: what }));

// A dialog that the browser keeps focus in.
function Dialog({ label, onClose, children }) {
  const element = useRef(null);
  useEffect(() => { element.current.showModal(); }, []);
  return <dialog ref={element} aria-label={label} onClose={onClose}>{children}</dialog>;
}

function KeyDialog({ wrong, onDone }) {
  const [key, change] = useState('');
  const send = (event) => {
    event.preventDefault();
    setKey(key.trim());
    onDone();
  };
  return (
    <Dialog label="API key" onClose={onDone}>
      <form onSubmit={send}>
        <h2>API key</h2>
        <p class="dim">{wrong ? 'The server doesn’t know this key.' : 'This server wants a key.'} It is kept until this tab is closed.</p>
        <input type="password" autocomplete="off" aria-label="API key" value={key} onInput={(e) => change(e.currentTarget.value)} />
        <div class="row end"><button disabled={!key.trim()}>Use it</button></div>
      </form>
    </Dialog>
  );
}

function useTheme() {
  const [theme, setTheme] = useState(() => setting('theme') ?? 'system');
  useEffect(() => {
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setting('theme', theme);
    dispatchEvent(new Event('thimble-theme'));
  }, [theme]);
  return [theme, () => setTheme({ system: 'light', light: 'dark', dark: 'system' }[theme])];
}

function App() {
  const [view, setView] = useState(viewNow);
  const [status, setStatus] = useState(null);
  const [problem, setProblem] = useState('');
  const [keyWanted, setKeyWanted] = useState(false), [keyTried, setKeyTried] = useState(false);
  const [help, setHelp] = useState(false);
  const [theme, nextTheme] = useTheme();
  const wanted = useRef(false);
  wanted.current = keyWanted;

  const refresh = useCallback(async () => {
    try {
      setStatus(await getJson('/thimble/status'));
      setProblem('');
    } catch (error) {
      setProblem(error.status === 401 ? '' : error.message);
    }
  }, []);
  useEffect(() => {
    refresh();
    const timer = setInterval(() => wanted.current || document.hidden || refresh(), 3000);
    return () => clearInterval(timer);
  }, [refresh]);
  useEffect(() => onKeyWanted(() => setKeyWanted(true)), []);
  useEffect(() => {
    const changed = () => setView(viewNow());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  useEffect(() => {
    const pressed = (event) => {
      if (event.key === 'Escape') return say('stop');
      const writes = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
      if (writes || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
      const number = Number(event.key);
      if (number >= 1 && number <= kViews.length) location.hash = kViews[number - 1][0];
      else if (event.key === '?') setHelp(true);
      else if (event.key === 't') nextTheme();
      else if (event.key === 'n') say('new');
      else if (event.key === '/') say('focus');
      else return;
      event.preventDefault();
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  });
  useEffect(() => { document.title = `${kViews.find(([name]) => name === view)[1]} · Thimble`; }, [view]);

  const models = status?.models ?? [];
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main').focus(); }}>To the content</a>
      <header class="top">
        <a class="brand" href="#chat"><img src="/icon.svg" alt="" width="26" height="26" />Thimble</a>
        <nav aria-label="Views">
          {kViews.map(([name, label]) => <a href={`#${name}`} aria-current={view === name ? 'page' : undefined}>{label}</a>)}
        </nav>
        <div class="corner">
          <span class={problem ? 'dot bad' : 'dot'} title={problem || `${status?.load.open ?? 0} answers open`} />
          <button class="quiet small" onClick={nextTheme} aria-label={`Colours: ${theme}`}>{{ system: 'Auto', light: 'Light', dark: 'Dark' }[theme]}</button>
          <button class="quiet small" onClick={() => setHelp(true)} aria-label="Keys">?</button>
        </div>
      </header>
      {problem && <p class="banner" role="alert">{problem} Trying again…</p>}
      <main id="main" tabIndex={-1}>
        {view === 'chat' && <Chat models={models} online={!problem} />}
        {view === 'compare' && <Compare models={models} />}
        {view === 'runs' && <Runs models={models} />}
        {view === 'live' && <Live />}
        {view === 'models' && <Models status={status} refresh={refresh} />}
      </main>
      {keyWanted && <KeyDialog wrong={keyTried} onDone={() => { setKeyWanted(false); setKeyTried(true); refresh(); }} />}
      {help && (
        <Dialog label="Keys" onClose={() => setHelp(false)}>
          <h2>Keys</h2>
          <dl class="keys">{kKeys.map(([key, what]) => <div><dt><kbd>{key}</kbd></dt><dd>{what}</dd></div>)}</dl>
          <form method="dialog" class="row end"><button>Close</button></form>
        </Dialog>
      )}
    </>
  );
}

render(<App />, document.getElementById('page'));
