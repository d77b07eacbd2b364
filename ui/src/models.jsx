import { useState } from 'preact/hooks';
import { request } from './api.js';

const megabytes = (bytes) => (bytes > 2e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(0)} MB`);

function Meter({ label, value, most, more }) {
  return (
    <div class="meter">
      <div class="meter-label"><span>{label}</span><span class="dim">{more}</span></div>
      <progress max={most || 1} value={value} aria-label={label} />
    </div>
  );
}

export function Models({ status, refresh }) {
  const [name, setName] = useState(''), [path, setPath] = useState(''), [base, setBase] = useState('');
  const [said, setSaid] = useState(null), [busy, setBusy] = useState(false);
  const act = async (done, work) => {
    setBusy(true);
    try {
      await work();
      setSaid({ text: done });
      refresh();
    } catch (error) {
      setSaid({ text: error.message, bad: true });
    }
    setBusy(false);
  };
  const load = (event) => {
    event.preventDefault();
    act(`${name} is served.`, () => request('/v1/adapters', { method: 'POST', body: { name, path, ...(base ? { base } : {}) } }));
  };
  const unload = (model) => act(`${model} is closed; answers that run are finished.`, () => request(`/v1/adapters/${encodeURIComponent(model)}`, { method: 'DELETE' }));
  if (!status) return <div class="view"><h1>Models</h1><p class="dim">Reading…</p></div>;
  const { resident, available } = status.memory;
  return (
    <div class="view models">
      <h1>Models</h1>
      <Meter label="Memory" value={resident} most={resident + available} more={`${megabytes(resident)} taken by the server, ${megabytes(available)} free on the machine`} />
      {status.bases.map((b) => (
        <section class="card" aria-label={b.name}>
          <header><h2>{b.name}</h2><span class="dim">weights and adapters {megabytes(b.bytes)} · context {b.context}</span></header>
          <Meter label="Cache, held by running answers" value={b.cache.held} most={b.cache.tokens} more={`${b.cache.held} of ${b.cache.tokens} tokens, ${megabytes(b.cache.bytes)}`} />
          <Meter label="Cache, with remembered beginnings" value={b.cache.used} most={b.cache.tokens} more={`${b.cache.used} tokens`} />
          <ul class="adapters">
            {status.models.filter((m) => m.base === b.name).map((m) => (
              <li>
                <div><b>{m.name}</b> <span class={m.adapter ? 'badge good' : 'badge'}>{m.job ? 'use case' : m.adapter ? 'adapter' : 'base'}</span>
                  {m.description && <p class="dim">{m.description}</p>}</div>
                {m.adapter && <button class="quiet small" disabled={busy} onClick={() => confirm(`Stop serving “${m.name}”?`) && unload(m.name)}>Unload</button>}
              </li>
            ))}
          </ul>
        </section>
      ))}
      <section class="card" aria-label="Load an adapter">
        <h2>Load an adapter</h2>
        <form class="fields" onSubmit={load}>
          <label>Name<input required value={name} onInput={(e) => setName(e.currentTarget.value)} /></label>
          <label>Folder on the server, or a GGUF LoRA file<input required value={path} onInput={(e) => setPath(e.currentTarget.value)} /></label>
          {status.bases.length > 1 && (
            <label>Base<select value={base} onChange={(e) => setBase(e.currentTarget.value)}><option value="">as the adapter says</option>{status.bases.map((b) => <option>{b.name}</option>)}</select></label>
          )}
          <button disabled={busy}>Load</button>
        </form>
        {said && <p class={said.bad ? 'problem' : 'dim'} role="status">{said.text}</p>}
      </section>
    </div>
  );
}
