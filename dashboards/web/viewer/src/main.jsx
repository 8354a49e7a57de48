// The page of `perfstream profile web`: what to look at, kept in the address, and Grafana's flame graph of it.
import './icons.js';
import React, { useEffect, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { createDataFrame, createTheme, FieldType } from '@grafana/data';
import { FlameGraph } from '@grafana/flamegraph';
import { turn } from './orientation.js';

const UNITS = { nanoseconds: 'ns', bytes: 'bytes', count: 'short', objects: 'short', share: 'percentunit' };
const SINCE = ['5m', '15m', '1h', '6h', '1d', '7d', '30d'];
const dark = window.matchMedia('(prefers-color-scheme: dark)').matches;
const theme = createTheme({ colors: { mode: dark ? 'dark' : 'light' } });
document.documentElement.dataset.theme = dark ? 'dark' : 'light';

/** A frame as the library wants it; of two sides `value` is the baseline's and `valueRight` the comparison's. */
function frame(graph) {
  const config = { unit: UNITS[graph.unit] ?? 'short' };
  const number = (name, values) => ({ name, type: FieldType.number, values, config });
  const fields = [
    { name: 'level', type: FieldType.number, values: graph.level, config: {} },
    number('value', graph.before ?? graph.value),
    number('self', graph.self),
    { name: 'label', type: FieldType.string, values: graph.label.map((at) => graph.names[at]), config: {} },
  ];
  if (graph.after) fields.push(number('valueRight', graph.after), number('selfRight', graph.after.map(() => 0)));
  return createDataFrame({ fields });
}

function read() {
  const given = new URLSearchParams(window.location.search);
  const of = (name, otherwise = '') => given.get(name) ?? otherwise;
  const side = (n) => ({ matcher: of('matcher' + n), since: of('since' + n), from: of('from' + n), to: of('to' + n) });
  return { type: of('type', 'cpu'), compare: given.has('compare'), flame: given.has('flame'), sides: [side(''), side('2')] };
}

function written(state) {
  const query = new URLSearchParams({ type: state.type });
  state.sides.slice(0, state.compare ? 2 : 1).forEach((side, n) =>
    Object.entries(side).forEach(([name, value]) => value && query.set(name + (n ? '2' : ''), value)));
  if (state.compare) query.set('compare', '1');
  return query.toString();
}

async function ask(what, query) {
  const answer = await fetch(`api/${what}?${query}`);
  const body = await answer.json().catch(() => ({ error: `the server answers ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

const quoted = (text) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
const matcherOf = (service, version) => `{service=${quoted(service)}${version ? `, version=${quoted(version)}` : ''}}`;

/** Whether a matcher says just this, in one of the ways people write it. */
function says(matcher, service, version) {
  const inner = version ? `version=${quoted(version)}` : '';
  return [matcherOf(service, version), service && service + (inner && `{${inner}}`)].includes(matcher.replace(/\s+/g, ' '));
}

function Side({ name, side, set, services }) {
  const chosen = services.find((s) => ['', ...s.versions].some((v) => says(side.matcher, s.service, v)));
  const version = chosen?.versions.find((v) => v && says(side.matcher, chosen.service, v)) ?? '';
  const [typed, type] = useState(side.matcher);
  useEffect(() => type(side.matcher), [side.matcher]);
  const time = (key, hint) => (
    <input aria-label={`${name} ${key}`} placeholder={hint} defaultValue={side[key]} key={side[key]} size="16"
      onBlur={(e) => e.target.value !== side[key] && set({ ...side, since: '', [key]: e.target.value })}
      onKeyDown={(e) => e.key === 'Enter' && e.target.blur()} />);
  return (
    <fieldset>
      <legend>{name}</legend>
      <select aria-label={`${name} service`} value={chosen?.service ?? ''}
        onChange={(e) => set({ ...side, matcher: e.target.value ? matcherOf(e.target.value, '') : '' })}>
        <option value="">every service</option>
        {services.map((s) => <option key={s.service} value={s.service}>{s.service || '(no name)'}</option>)}
      </select>
      <select aria-label={`${name} version`} value={version} disabled={!chosen}
        onChange={(e) => set({ ...side, matcher: matcherOf(chosen.service, e.target.value) })}>
        <option value="">every version</option>
        {chosen?.versions.filter(Boolean).map((v) => <option key={v}>{v}</option>)}
      </select>
      <input className="matcher" aria-label={`${name} matcher`} value={typed} placeholder='{node=~"a.*"}' spellCheck="false"
        onChange={(e) => type(e.target.value)} onBlur={() => typed !== side.matcher && set({ ...side, matcher: typed })}
        onKeyDown={(e) => e.key === 'Enter' && e.target.blur()} />
      <select aria-label={`${name} time range`} value={side.from || side.to ? '' : side.since || '15m'}
        onChange={(e) => set({ ...side, since: e.target.value, from: '', to: '' })}>
        {(side.from || side.to) && <option value="">as written</option>}
        {[...new Set([...SINCE, side.since].filter(Boolean))].map((s) => <option key={s} value={s}>last {s}</option>)}
      </select>
      {time('from', 'from, e.g. now-2h')}
      {time('to', 'to, e.g. now')}
    </fieldset>);
}

function App() {
  const [state, setState] = useState(read);
  const [choices, setChoices] = useState({ services: [], types: [] });
  const [shown, setShown] = useState({ waiting: true });
  const [round, again] = useState(0);
  const query = written(state);
  useEffect(() => {
    let current = true;
    setShown((was) => ({ ...was, waiting: true, error: '' }));
    ask('choices', query).then((found) => current && setChoices(found)).catch(() => {});
    ask('flamegraph', query)
      .then((graph) => current && setShown({ graph, query }))
      .catch((error) => current && setShown({ error: error.message }));
    return () => { current = false; };
  }, [query, round]);
  useEffect(() => {
    window.history.replaceState(null, '', `?${query}${state.flame ? '&flame=1' : ''}`);
    turn(state.flame);
  }, [query, state.flame]);
  const setSide = (n) => (side) => setState({ ...state, sides: state.sides.map((s, at) => (at === n ? side : s)) });
  const data = useMemo(() => shown.graph && frame(shown.graph), [shown.graph]);
  const types = [...new Set([state.type, ...choices.types])].sort();
  return (
    <>
      <header>
        <h1>perfstream</h1>
        <label>Type <select aria-label="type" value={state.type} onChange={(e) => setState({ ...state, type: e.target.value })}>
          {types.map((t) => <option key={t}>{t}</option>)}
        </select></label>
        <label><input type="checkbox" aria-label="compare" checked={state.compare} onChange={(e) =>
          setState({ ...state, compare: e.target.checked,
            sides: e.target.checked && !written({ ...state, sides: [state.sides[1]], compare: false }).includes('matcher')
              ? [state.sides[0], { ...state.sides[0] }] : state.sides })} /> compare</label>
        <label>Drawn as <select aria-label="orientation" value={state.flame ? 'flame' : 'icicle'}
          onChange={(e) => setState({ ...state, flame: e.target.value === 'flame' })}>
          <option>icicle</option>
          <option>flame</option>
        </select></label>
        <button type="button" onClick={() => again(round + 1)}>Refresh</button>
        <a href={`flamegraph.html?${query}`} title="The same as one file that needs no network, as flame or icicle">As a file</a>
        <output aria-live="polite">{shown.waiting ? 'reading …' : shown.graph?.about}</output>
      </header>
      <Side name={state.compare ? 'Baseline' : 'Selection'} side={state.sides[0]} set={setSide(0)} services={choices.services} />
      {state.compare && <Side name="Comparison" side={state.sides[1]} set={setSide(1)} services={choices.services} />}
      {shown.error && <p role="alert">{shown.error}</p>}
      {data && <main data-query={shown.query}>
        <FlameGraph data={data} getTheme={() => theme} stickyHeader={false} key={shown.graph.unit} />
      </main>}
    </>);
}

createRoot(document.getElementById('root')).render(<App />);
