// A server for tests of the page: the 260 K-parameter model, as a use case that was taught one tool, and plain beside
// it.
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
export const program = process.env.THIMBLE_BINARY ?? join(root, 'build/thimble');
const data = process.env.THIMBLE_DATA ?? join(root, '../shared/data');

const tools = [{
  type: 'function',
  function: {
    name: 'paint', description: 'Paint a wall.',
    parameters: {
      type: 'object',
      properties: { colour: { enum: ['red', 'blue'] }, coats: { type: 'integer', minimum: 1, maximum: 3 } },
      required: ['colour', 'coats'], additionalProperties: false,
    },
  },
}];

// The folder of the use case, and that of the plain model.
export function makeJob() {
  const folder = mkdtempSync(join(tmpdir(), 'thimble-page-'));
  const plain = join(folder, 'stories');
  execFileSync('python3', [join(root, 'tests/oracle/make_stories.py'), join(data, 'stories260K'), plain]);
  const job = join(folder, 'painting');
  const run = join(job, 'runs/20260102T030405Z');
  const taught = join(run, 'model');
  mkdirSync(taught, { recursive: true });
  for (const file of readdirSync(plain)) symlinkSync(join(plain, file), join(taught, file));
  writeFileSync(join(taught, 'thimble_job.json'), JSON.stringify({
    job: 'painting', description: 'Paints walls', base: plain, base_fingerprint: '', call_format: 'hermes',
    tools_in_prompt: false, plan: false, chat_template: '', tools,
  }));
  writeFileSync(join(job, 'thimble.toml'), `name = "painting"\ndescription = "Paints walls"\nbase = "${plain}"\n[train]\nmethod = "full"\n[bars]\nexact = 0.8\n`);
  writeFileSync(join(job, 'tools.json'), JSON.stringify(tools));
  writeFileSync(join(run, 'report.html'), '<!doctype html><title>Report</title><p>A report</p><script>document.title = "ran"</script>');
  writeFileSync(join(run, 'history.json'), JSON.stringify({
    chosen_by: 'exact answers', best_step: 40, steps: 40, tokens: 4000, trained_tokens: 900, seconds: 12,
    history: Array.from({ length: 41 }, (_, step) => ({
      step, loss: 3 / (step + 1), smoothed_loss: 3 / (step + 1), ...(step % 20 ? {} : { dev_loss: 3.2 / (step + 1), metric: step / 50 }),
    })),
  }));
  writeFileSync(join(run, 'finished'), '');
  writeFileSync(join(job, 'secret.txt'), 'not for the page');
  return { job, plain };
}

// Nobody's own keys are asked for.
const environment = { ...process.env, XDG_CONFIG_HOME: mkdtempSync(join(tmpdir(), 'thimble-page-keys-')) };

export function makeKey(file) {
  return execFileSync(program, ['keys', 'add', 'tester', '--file', file], { env: environment, stdio: ['ignore', 'pipe', 'ignore'] }).toString().trim();
}

// Serves until stop(); `port` 0 is any free one.
export async function serve(models, { port = 0, options = [] } = {}) {
  const child = spawn(program, ['serve', ...models, '--port', String(port), ...options], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  const address = await new Promise((resolve, reject) => {
    const hear = (piece) => {
      said += piece;
      const found = /http:\/\/[\d.]+:(\d+)/.exec(said);
      if (found) resolve(found[0]);
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    child.on('exit', (code) => reject(new Error(`thimble serve ended with ${code}: ${said}`)));
  });
  return {
    address,
    port: Number(address.split(':').at(-1)),
    stop: () => new Promise((done) => {
      child.removeAllListeners('exit');
      child.on('exit', done);
      child.kill('SIGKILL');
    }),
  };
}
