import { useEffect, useMemo, useState } from 'preact/hooks';
import { getJson, getText, hasKey } from './api.js';
import { Plot } from './plot.jsx';

const kNames = {
  exact: 'exact answers', name_accuracy: 'right tool', argument_f1: 'arguments (F1)',
  false_calls: 'called without need', missed_calls: 'missed calls',
};
const percent = (share) => `${+(share * 100).toFixed(1)} %`;
const kLoss = [{ label: 'loss', colour: '--accent' }, { label: 'dev loss', colour: '--second', points: true }];
const kMetric = [{ label: 'dev metric', colour: '--accent', points: true }];

const when = (name) => {
  const m = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/.exec(name);
  return m ? new Date(Date.UTC(m[1], m[2] - 1, m[3], m[4], m[5], m[6])).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' }) : name;
};

function Curve({ address }) {
  const [history, setHistory] = useState(null), [problem, setProblem] = useState('');
  useEffect(() => {
    setHistory(null);
    getJson(`${address}/history.json`).then(setHistory, (error) => setProblem(error.message));
  }, [address]);
  const data = useMemo(() => {
    if (!history) return null;
    const rows = history.history.filter((row) => row.step > 0);
    const stride = Math.max(1, Math.ceil(rows.length / 1200));
    const shown = rows.filter((row, i) => i % stride === 0 || row.dev_loss !== undefined);
    const measured = history.history.filter((row) => row.metric !== undefined);
    return {
      loss: [shown.map((r) => r.step), shown.map((r) => r.smoothed_loss || null), shown.map((r) => r.dev_loss ?? null)],
      metric: measured.length > 1 ? [measured.map((r) => r.step), measured.map((r) => r.metric)] : null,
    };
  }, [history]);
  if (problem) return <p class="problem">{problem}</p>;
  if (!data) return <p class="dim">Reading the history…</p>;
  return (
    <>
      <div class="tiles">
        <div class="tile"><span class="label">Steps</span><b>{history.steps}</b><span class="dim">best at {history.best_step}</span></div>
        <div class="tile"><span class="label">Tokens</span><b>{(history.tokens / 1e6).toFixed(2)} M</b><span class="dim">{(history.trained_tokens / 1e6).toFixed(2)} M trained</span></div>
        <div class="tile"><span class="label">Time</span><b>{(history.seconds / 60).toFixed(1)} min</b><span class="dim">{(history.tokens / history.seconds).toFixed(0)} tokens/s</span></div>
      </div>
      <h3>Loss</h3>
      <Plot label="Training and dev loss over steps, logarithmic" data={data.loss} series={kLoss} log height={260} />
      {data.metric && <><h3>{history.chosen_by || 'Metric'}</h3><Plot label="The dev part’s metric over steps" data={data.metric} series={kMetric} height={180} /></>}
    </>
  );
}

export function Runs({ models }) {
  const known = models.filter((m) => m.job);
  const [name, setName] = useState(null);
  const chosen = name ?? known[0]?.name;
  const [job, setJob] = useState(null), [run, setRun] = useState(null), [problem, setProblem] = useState('');
  useEffect(() => {
    setJob(null);
    setRun(null);
    if (!chosen) return;
    getJson(`/thimble/jobs/${encodeURIComponent(chosen)}`).then((j) => {
      setJob(j);
      setRun(j.runs.find((r) => r.name === j.serves)?.name ?? j.runs[0]?.name);
    }, (error) => setProblem(error.message));
  }, [chosen]);
  const address = `/thimble/jobs/${encodeURIComponent(chosen)}/runs/${encodeURIComponent(run)}`;
  // A link can't carry the key: then the report is fetched and saved.
  const save = async (event) => {
    if (!hasKey()) return;
    event.preventDefault();
    const a = document.createElement('a');
    a.href = URL.createObjectURL(new Blob([await getText(event.currentTarget.href)], { type: 'text/html' }));
    a.download = `${chosen}-${run}-report.html`;
    a.click();
  };
  if (!known.length) return <div class="view"><h1>Runs</h1><p class="dim">No use case is served. <code>thimble serve my-job</code> shows its runs here.</p></div>;
  const about = job?.runs.find((r) => r.name === run);
  return (
    <div class="view runs">
      <h1>Runs</h1>
      {known.length > 1 && (
        <label class="model">Use case<select value={chosen} onChange={(e) => setName(e.currentTarget.value)}>{known.map((m) => <option>{m.name}</option>)}</select></label>
      )}
      {problem && <p class="problem" role="alert">{problem}</p>}
      {job && (
        <>
          <p class="lead">{job.description}</p>
          {job.problem && <p class="problem">{job.problem}</p>}
          <div class="facts">
            <span>base <b>{job.base}</b></span><span><b>{job.tools.length}</b> tools</span>
            {Object.entries(job.bars).map(([bar, value]) => (
              <span>{kNames[bar] ?? bar} {/calls$/.test(bar) ? 'at most' : 'at least'} <b>{percent(value)}</b></span>
            ))}
          </div>
          <div class="columns narrow-first">
            <nav aria-label="Runs"><ul class="run-list">
              {job.runs.map((r) => (
                <li><button class="entry" aria-current={r.name === run} onClick={() => setRun(r.name)}>
                  {when(r.name)}<span class={`badge ${r.state === 'finished' ? 'good' : r.state === 'failed' ? 'bad' : ''}`}>{r.name === job.serves ? 'served' : r.state}</span>
                </button></li>
              ))}
            </ul></nav>
            <section aria-label="The run">
              {about?.report && <p><a class="button" href={`${address}/report.html`} target="_blank" rel="noopener" onClick={save}>Open the report</a></p>}
              {about?.history ? <Curve key={run} address={address} /> : <p class="dim">This run has no history yet.</p>}
            </section>
          </div>
        </>
      )}
    </div>
  );
}
