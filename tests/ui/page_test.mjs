// The page in a real browser against a real server. Needs chromium (CHROMIUM, or as Debian installs it), the npm
// packages of ui/ and the program: node --test tests/ui/page_test.mjs
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { makeJob, makeKey, serve } from './server.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { chromium } = createRequire(join(here, '../../ui/package.json'))('playwright-core');
let browser, server, job, plain, complaints;

before(async () => {
  ({ job, plain } = makeJob());
  server = await serve([job, plain]);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });
});
after(async () => {
  await browser?.close();
  await server?.stop();
  if (job) rmSync(dirname(job), { recursive: true, force: true });
});

// A page with storage of its own. What the browser complains of (scripts, the content policy) fails the test.
async function open(hash = '', viewport = { width: 1200, height: 800 }, address = server.address) {
  const context = await browser.newContext({ viewport });
  // So small a model can't know when to call: those that ask the taught one require it.
  await context.addInitScript(() => {
    const ask = window.fetch;
    window.fetch = (path, options) => {
      if (path !== '/v1/chat/completions' || !options.body.includes('"model":"painting"')) return ask(path, options);
      return ask(path, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), tool_choice: 'required', parallel_tool_calls: false }) });
    };
  });
  const page = await context.newPage();
  complaints = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (said) => said.type() === 'error' && complaints.push(said.text()));
  page.setDefaultTimeout(20_000);
  await page.goto(address + '/' + hash);
  await page.getByRole('link', { name: 'Chat' }).waitFor();
  return page;
}
const say = async (page, text) => {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
};
const finished = (page) => page.getByRole('button', { name: 'Retry' }).waitFor();

test('a conversation with a tool call is checked, kept over a reload, edited and retried', async () => {
  const page = await open();
  await say(page, 'Paint the kitchen');
  await finished(page);
  const call = page.getByRole('region', { name: 'Call of the tool paint' }).first();
  await call.getByText('valid', { exact: true }).waitFor();
  assert.match(await call.innerText(), /colour\s+(red|blue)\s+coats\s+[123]/);
  const before = await page.getByRole('log').innerText();

  await page.reload();
  await finished(page);
  assert.equal(await page.getByRole('log').innerText(), before);

  await page.getByRole('button', { name: 'Edit' }).click();
  await page.getByLabel('Your message').fill('Paint the hall');
  await page.keyboard.press('Enter');
  await finished(page);
  assert.match(await page.getByRole('log').innerText(), /Paint the hall/);
  assert.doesNotMatch(await page.getByRole('log').innerText(), /kitchen/);

  await page.getByRole('button', { name: 'Retry' }).click();
  await finished(page);
  assert.equal(await page.getByRole('article', { name: /^Answer/ }).count(), 1);

  await page.getByRole('button', { name: 'New conversation' }).click();
  assert.equal(await page.getByRole('article').count(), 0);
  await page.getByRole('button', { name: 'Paint the kitchen', exact: true }).click();
  assert.match(await page.getByRole('log').innerText(), /Paint the hall/);
  assert.deepEqual(complaints, []);
});

test('an answer can be stopped', async () => {
  const page = await open();
  await page.getByLabel('Model').selectOption('stories');
  // The model is fast: the stream is held open here, so that there is something to stop.
  await page.evaluate(() => {
    const ask = window.fetch;
    window.fetch = async (path, options) => {
      if (path !== '/v1/chat/completions') return ask(path, options);
      const stream = new ReadableStream({
        start(out) {
          out.enqueue(new TextEncoder().encode('data: {"choices":[{"index":0,"delta":{"content":"Once"}}]}\n\n'));
          options.signal.addEventListener('abort', () => out.error(options.signal.reason));
        },
      });
      return new Response(stream);
    };
  });
  await say(page, 'Tell me everything');
  await page.getByText('Once').waitFor();
  await page.keyboard.press('Escape');
  await page.getByText('stopped').waitFor();
  assert.equal(await page.getByRole('button', { name: 'Stop' }).count(), 0);
  assert.deepEqual(complaints, []);
});

test('what a model writes never becomes a part of the page', async () => {
  const page = await open();
  const evil = '<img src=x onerror="window.bad=1"> <script>window.bad=1</script> **bold** [x](javascript:window.bad=1) [y](https://example.org) `a<b`\n\n```html\n<b>code</b>\n```';
  await page.evaluate((content) => {
    localStorage.setItem('thimble.chat.evil', JSON.stringify({
      id: 'evil', model: '', title: '<b>title</b>', changed: 1,
      messages: [{ role: 'user', content: '<i>hi</i>' }, { role: 'assistant', model: 'm', content, reasoning: '<u>plan</u>', calls: [], state: 'done' }],
    }));
    localStorage.setItem('thimble.open', '"evil"');
  }, evil);
  await page.reload();
  await finished(page);
  const log = page.getByRole('log');
  assert.equal(await log.locator('img, script, i:not(.waiting i), u').count(), 0);
  assert.equal(await log.locator('a').count(), 1);
  assert.equal(await log.locator('a').getAttribute('rel'), 'noopener noreferrer nofollow');
  assert.equal(await log.locator('strong').innerText(), 'bold');
  assert.equal(await log.locator('figure pre').innerText(), '<b>code</b>');
  assert.equal(await page.evaluate(() => window.bad), undefined);
  assert.deepEqual(complaints, []);
});

test('a model that learned from single messages gets each alone, and the page says so', async () => {
  const page = await open();
  const sent = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/v1/chat/completions')) sent.push(request.postDataJSON());
  });
  const says = page.getByText('painting learned from single messages: each is answered on its own');
  await says.waitFor();
  await say(page, 'Paint the kitchen');
  await finished(page);
  assert.equal(await page.getByText('What is above was not sent').count(), 0);
  await say(page, 'And the hall');
  await page.getByRole('article', { name: /^Answer/ }).nth(1).getByText(/tokens\/s/).waitFor();
  assert.equal(await page.getByText('What is above was not sent').count(), 1);
  assert.deepEqual(sent.at(-1).messages, [{ role: 'user', content: 'And the hall' }]);

  await page.getByRole('article', { name: /^Answer/ }).nth(1).getByRole('button', { name: 'Give a result…' }).first().click();
  await page.getByLabel('What paint returns').fill('done');
  await page.getByRole('button', { name: 'Send result' }).click();
  await page.getByRole('article', { name: /^Answer/ }).nth(2).getByText(/tokens\/s/).waitFor();
  assert.deepEqual(sent.at(-1).messages.map((m) => m.role), ['user', 'assistant', 'tool']);
  assert.equal(sent.at(-1).messages[0].content, 'And the hall');

  await page.getByRole('combobox', { name: 'Model' }).selectOption('stories');
  await says.waitFor({ state: 'detached' });
  await say(page, 'Once');
  await page.locator('article.answer[aria-busy=false]').nth(3).waitFor();
  assert.equal(sent.at(-1).messages[0].content, 'Paint the kitchen');
  assert.equal(await page.getByText('What is above was not sent').count(), 1);
  assert.deepEqual(complaints.filter((c) => !/status of 400/.test(c)), []);  // so small a context may not hold it all
});

test('two models answer the same message side by side', async () => {
  const page = await open('#compare');
  await page.getByRole('region', { name: 'Base' }).getByRole('combobox').selectOption('stories');
  await page.getByLabel('Message to both').fill('Paint the kitchen');
  await page.keyboard.press('Enter');
  await page.getByRole('region', { name: 'Tuned' }).getByText('valid', { exact: true }).waitFor();
  await page.getByRole('region', { name: 'Base' }).getByText(/tokens\/s/).waitFor();
  assert.deepEqual(complaints, []);
});

test('runs, live figures and models are shown, by keys alone', async () => {
  const page = await open();
  await page.getByRole('link', { name: 'Chat' }).focus();
  await page.keyboard.press('3');
  await page.getByRole('heading', { name: 'Runs' }).waitFor();
  await page.getByText('80 %').waitFor();
  await page.getByRole('img', { name: /loss over steps/ }).locator('canvas').waitFor();
  const [report] = await Promise.all([page.context().waitForEvent('page'), page.getByRole('link', { name: 'Open the report' }).click()]);
  await report.getByText('A report').waitFor();
  assert.equal(await report.title(), 'Report', 'a report must not run scripts');
  await report.close();
  await page.keyboard.press('4');
  await page.getByText('Forced by schema').waitFor();
  await page.getByRole('img', { name: 'Tokens a second over time' }).locator('canvas').waitFor();
  await page.keyboard.press('5');
  await page.getByRole('region', { name: 'Load an adapter' }).waitFor();
  await page.getByLabel('Name').fill('nothing');
  await page.getByLabel('Folder on the server').fill('/nowhere');
  await page.getByRole('button', { name: 'Load' }).click();
  await page.locator('.problem').waitFor();
  await page.getByRole('link', { name: 'Chat' }).focus();
  await page.keyboard.press('?');
  await page.getByRole('dialog', { name: 'Keys' }).waitFor();
  await page.keyboard.press('Escape');
  await page.keyboard.press('1');
  await page.getByLabel('Message', { exact: true }).waitFor();
  assert.deepEqual(complaints.filter((c) => !/status of 4\d\d/.test(c)), []);
});

test('a phone shows everything without scrolling sideways', async () => {
  const page = await open('', { width: 360, height: 740 });
  for (const view of ['chat', 'compare', 'runs', 'live', 'models']) {
    await page.evaluate((to) => { location.hash = to; }, view);
    await page.waitForTimeout(300);
    const wide = await page.evaluate(() => [document.documentElement, document.querySelector('main')].map((e) => e.scrollWidth - e.clientWidth));
    assert.deepEqual(wide, [0, 0], view);
  }
});

test('the page says that the server is gone, and goes on when it is back', async () => {
  const page = await open();
  await say(page, 'Paint the kitchen');
  await finished(page);
  const { port } = server;
  await server.stop();
  await page.getByRole('alert').getByText('can’t be reached').waitFor();
  await say(page, 'And the hall');
  await page.locator('.answer .problem').waitFor();
  server = await serve([job, plain], { port });
  await page.getByRole('alert').getByText('Trying again').waitFor({ state: 'detached' });
  await page.getByRole('button', { name: 'Retry' }).click();
  await page.getByRole('article', { name: /^Answer/ }).nth(1).getByText('valid', { exact: true }).waitFor();
});

test('a server that wants a key is given one, which a wrong one is not', async () => {
  const keys = join(job, 'keys.jsonl');
  const key = makeKey(keys);
  const guarded = await serve([job, plain], { options: ['--keys', keys] });
  try {
    const page = await open('', undefined, guarded.address);
    const dialog = page.getByRole('dialog', { name: 'API key' });
    await dialog.getByLabel('API key').fill('thk-wrong');
    await page.keyboard.press('Enter');
    await dialog.getByText('doesn’t know this key').waitFor();
    await dialog.getByLabel('API key').fill(key);
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    await say(page, 'Paint the kitchen');
    await finished(page);
    await page.getByText('valid', { exact: true }).waitFor();
    assert.equal(await page.evaluate(() => JSON.stringify({ ...localStorage }).includes('thk-')), false);
  } finally {
    await guarded.stop();
  }
});

test('files of the page and of runs come as they should', async () => {
  const get = (path, headers = {}) => fetch(server.address + path, { headers });
  const script = await get('/page.js');
  assert.equal(script.headers.get('content-encoding'), 'gzip');
  assert.match(script.headers.get('content-security-policy'), /default-src 'none'; script-src 'self'/);
  assert.equal((await get('/page.js', { 'if-none-match': script.headers.get('etag') })).status, 304);
  const text = await script.text();
  assert.doesNotMatch(text, /https?:\/\/(?!www\.w3\.org)[\w-]+\.[\w.]+\/\w+\.(js|css|woff)/, 'nothing comes from elsewhere');
  const whole = await get('/page.js', { 'accept-encoding': 'identity' });
  assert.equal(whole.headers.get('content-encoding'), null);
  assert.equal(await whole.text(), text);

  const runs = '/thimble/jobs/painting/runs';
  assert.equal((await (await get(`${runs}/20260102T030405Z/history.json`)).json()).steps, 40);
  for (const path of [`${runs}/20260102T030405Z/finished`, `${runs}/%2e%2e/secret.txt`, `${runs}/..%2fsecret.txt`,
                      `${runs}/20260102T030405Z/..%2f..%2fsecret.txt`, `${runs}/20260102T030405Z/model%2fconfig.json`,
                      `${runs}/./history.json`, `${runs}//history.json`, '/thimble/jobs/stories/runs/x/history.json'])
    assert.ok((await get(path)).status >= 400, path);

  const check = async (calls) => {
    const answer = await fetch(`${server.address}/thimble/check-calls`, { method: 'POST', body: JSON.stringify({ model: 'painting', calls }) });
    return (await answer.json()).calls.map((call) => call.valid);
  };
  assert.deepEqual(await check([
    { name: 'paint', arguments: '{"colour": "red", "coats": 2}' }, { name: 'paint', arguments: '{"colour": "green", "coats": 2}' },
    { name: 'paint', arguments: '{"colour": "red"' }, { name: 'sing', arguments: '{}' },
  ]), [true, false, false, false]);
});
