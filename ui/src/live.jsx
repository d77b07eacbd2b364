import { useEffect, useState } from 'preact/hooks';
import { getText } from './api.js';
import { Plot } from './plot.jsx';
import { parse, quantile, sum } from './prometheus.js';

const kKept = 300; // samples, a second each
const kWindow = 30; // of latencies
const kSpeed = [{ label: 'answers', colour: '--accent' }, { label: 'prompts', colour: '--second' }];
const kLoad = [{ label: 'running', colour: '--accent' }, { label: 'waiting', colour: '--second' }];
const kLatency = [
  { label: 'first token, median', colour: '--accent' }, { label: 'whole answer, median', colour: '--second' },
  { label: 'whole answer, 95th', colour: '--second', width: 1, dash: [4, 4] },
];
const gigabytes = (bytes) => `${(bytes / 1e9).toFixed(2)} GB`;

export function Live() {
  const [samples, setSamples] = useState([]), [problem, setProblem] = useState('');
  useEffect(() => {
    let timer, gone = false;
    const poll = async () => {
      try {
        const now = { at: Date.now() / 1000, families: parse(await getText('/metrics')) };
        if (gone) return;
        setSamples((old) => [...old.slice(1 - kKept), now]);
        setProblem('');
      } catch (error) {
        setProblem(error.message);
      }
      if (!gone) timer = setTimeout(poll, 1000);
    };
    poll();
    return () => { gone = true; clearTimeout(timer); };
  }, []);
  if (!samples.length) return <div class="view"><h1>Live</h1><p class={problem ? 'problem' : 'dim'}>{problem || 'Reading…'}</p></div>;
  const now = samples.at(-1).families;
  const rate = (name, i) => {
    const a = samples[Math.max(0, i - 3)], b = samples[i]; // over three seconds
    if (!a || a === b) return 0;
    return Math.max(0, sum(b.families, name) - sum(a.families, name)) / (b.at - a.at);
  };
  const times = samples.map((s) => s.at);
  const each = (of) => samples.map((s, i) => of(s.families, i));
  const late = (name, q) => each((families, i) => quantile(families, samples[Math.max(0, i - kWindow)].families, name, q));
  const hits = sum(now, 'vllm:prefix_cache_hits_total'), asked = sum(now, 'vllm:prefix_cache_queries_total');
  const drafted = sum(now, 'vllm:spec_decode_num_draft_tokens_total'), accepted = sum(now, 'vllm:spec_decode_num_accepted_tokens_total');
  const generated = sum(now, 'vllm:generation_tokens_total'), forced = sum(now, 'thimble_forced_tokens_total');
  const measured = now.thimble_energy_joules_total;
  const joules = sum(now, measured ? 'thimble_energy_joules_total' : 'thimble_energy_estimate_joules_total');
  const share = (part, whole) => (whole ? `${(part / whole * 100).toFixed(0)} %` : '–');
  const tile = (label, value, more) => <div class="tile"><span class="label">{label}</span><b>{value}</b><span class="dim">{more}</span></div>;
  return (
    <div class="view live">
      <h1>Live</h1>
      <div class="tiles">
        {tile('Running', sum(now, 'vllm:num_requests_running'), `${sum(now, 'vllm:num_requests_waiting')} waiting`)}
        {tile('Speed', `${rate('vllm:generation_tokens_total', samples.length - 1).toFixed(0)}`, 'tokens/s')}
        {tile('Answers', sum(now, 'vllm:request_success_total'), `${generated} tokens`)}
        {tile('Prompts from cache', share(hits, asked), `of ${asked} tokens`)}
        {tile('Forced by schema', share(forced, generated), 'of the answers’ tokens')}
        {tile('Guesses right', share(accepted, drafted), `of ${drafted} tokens`)}
        {tile('Memory', gigabytes(sum(now, 'process_resident_memory_bytes')), 'of the process')}
        {tile(measured ? 'Energy' : 'Energy, estimated', `${joules > 5000 ? `${(joules / 3600).toFixed(1)} Wh` : `${joules.toFixed(0)} J`}`, measured ? 'of the processors' : 'from processor time')}
      </div>
      <h3>Tokens a second</h3>
      <Plot label="Tokens a second over time" time data={[times, each((f, i) => rate('vllm:generation_tokens_total', i)), each((f, i) => rate('vllm:prompt_tokens_total', i))]} series={kSpeed} />
      <h3>Answers in the batch, and waiting</h3>
      <Plot label="Running and waiting answers over time" time data={[times, each((f) => sum(f, 'vllm:num_requests_running')), each((f) => sum(f, 'vllm:num_requests_waiting'))]} series={kLoad} height={170} />
      <h3>Latency of the last {kWindow} seconds</h3>
      <Plot label="Latencies over time, in seconds" time unit=" s" data={[times, late('vllm:time_to_first_token_seconds', 0.5), late('vllm:e2e_request_latency_seconds', 0.5), late('vllm:e2e_request_latency_seconds', 0.95)]} series={kLatency} />
    </div>
  );
}
