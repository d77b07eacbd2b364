// What models write, as elements: never as HTML text, so nothing in it can become a part of the page.
import { useState } from 'preact/hooks';

const kInline = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([\s\S]+?)\*\*|__([\s\S]+?)__|\*([^\s*][^*]*?)\*|(?<![\w])_([^\s_][^_]*?)_(?![\w])|~~([\s\S]+?)~~|\[([^\]]+)\]\(([^\s)]+)\)|(https?:\/\/[^\s<>)\]"']+)/;

const safe = (address) => /^(https?:\/\/|mailto:)/i.test(address);
const link = (address, text) =>
  safe(address) ? <a href={address} target="_blank" rel="noopener noreferrer nofollow">{text}</a> : text;

export function inline(text) {
  const out = [];
  for (let rest = text; rest; ) {
    const m = kInline.exec(rest);
    if (!m) {
      out.push(rest);
      break;
    }
    if (m.index) out.push(rest.slice(0, m.index));
    if (m[2] !== undefined) out.push(<code>{m[2].trim()}</code>);
    else if (m[3] ?? m[4]) out.push(<strong>{inline(m[3] ?? m[4])}</strong>);
    else if (m[5] ?? m[6]) out.push(<em>{inline(m[5] ?? m[6])}</em>);
    else if (m[7]) out.push(<del>{inline(m[7])}</del>);
    else if (m[8]) out.push(link(m[9], inline(m[8])));
    else out.push(link(m[10], m[10]));
    rest = rest.slice(m.index + m[0].length);
  }
  return out;
}

export function Code({ text, language }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <figure class="code">
      <figcaption><span>{language || 'text'}</span><button class="quiet small" onClick={copy}>{copied ? 'Copied' : 'Copy'}</button></figcaption>
      <pre tabIndex={0}><code>{text}</code></pre>
    </figure>
  );
}

const kItem = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const kFence = /^\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const kHeading = /^(#{1,6})\s+(.*?)\s*#*$/;
const kRule = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim());
const isDivider = (line) => line !== undefined && line.includes('-') && /^\s*\|?[\s:|-]+\|?\s*$/.test(line) && line.includes('|');

function list(lines) {
  const ordered = /\d/.test(kItem.exec(lines[0])[2]);
  const indent = kItem.exec(lines[0])[1].length;
  const items = [];
  for (const line of lines) {
    const m = kItem.exec(line);
    if (m && m[1].length <= indent) items.push([m[3]]);
    else items.at(-1).push(line.replace(new RegExp(`^\\s{0,${indent + 3}}`), ''));
  }
  const rows = items.map((item) => <li>{item.length === 1 ? inline(item[0]) : blocks(item)}</li>);
  return ordered ? <ol start={parseInt(kItem.exec(lines[0])[2], 10)}>{rows}</ol> : <ul>{rows}</ul>;
}

function blocks(lines) {
  const out = [];
  let i = 0;
  const take = (more) => {
    const begin = i++;
    while (i < lines.length && more(lines[i])) ++i;
    return lines.slice(begin, i);
  };
  while (i < lines.length) {
    const line = lines[i];
    const fence = kFence.exec(line);
    const heading = kHeading.exec(line);
    if (!line.trim()) {
      ++i;
    } else if (fence) {
      const inside = [];
      for (++i; i < lines.length && !lines[i].trim().startsWith(fence[1]); ++i) inside.push(lines[i]);
      ++i;
      out.push(<Code text={inside.join('\n')} language={fence[2]} />);
    } else if (heading) {
      const Level = `h${Math.min(heading[1].length + 2, 6)}`;
      out.push(<Level>{inline(heading[2])}</Level>);
      ++i;
    } else if (kRule.test(line)) {
      out.push(<hr />);
      ++i;
    } else if (/^\s{0,3}>/.test(line)) {
      const quoted = take((next) => /^\s{0,3}>/.test(next)).map((l) => l.replace(/^\s{0,3}> ?/, ''));
      out.push(<blockquote>{blocks(quoted)}</blockquote>);
    } else if (kItem.test(line)) {
      out.push(list(take((next) => kItem.test(next) || /^\s{2,}\S/.test(next))));
    } else if (line.includes('|') && isDivider(lines[i + 1])) {
      const [head, , ...rows] = take((next) => next.includes('|'));
      out.push(
        <div class="scroll" tabIndex={0}><table>
          <thead><tr>{cells(head).map((cell) => <th scope="col">{inline(cell)}</th>)}</tr></thead>
          <tbody>{rows.map((row) => <tr>{cells(row).map((cell) => <td>{inline(cell)}</td>)}</tr>)}</tbody>
        </table></div>
      );
    } else {
      const paragraph = take((next) => next.trim() && !kFence.test(next) && !kHeading.test(next) && !kItem.test(next) && !/^\s{0,3}>/.test(next));
      out.push(<p>{inline(paragraph.join('\n'))}</p>);
    }
  }
  return out;
}

export const Markdown = ({ text }) => <div class="markdown">{blocks(text.split('\n'))}</div>;
