// Bundles src/main.jsx and what it uses into ../static/viewer.js, and the licences of what is in it into
// ../static/LICENSES.txt. Both are committed: a node that runs perfstream needs no npm.
//
// Grafana's packages import whole editors, calendars and maps that a flame graph never shows; those are left out.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

const UNUSED = /^(monaco-editor|@monaco-editor\/|react-monaco-editor|slate$|slate-|@grafana\/slate-react|ol\/|ol$|rc-time-picker|uplot$|immutable$|prismjs)/;
const NOTHING = `
  const target = function () { return nothing; };
  const nothing = new Proxy(target, {
    get(t, key) {
      if (key === '__esModule') return false;
      if (key === Symbol.toPrimitive) return () => '';
      if (key === 'prototype') return t.prototype;
      return key === 'then' ? undefined : nothing;
    },
    construct() { return {}; },
    apply() { return nothing; },
  });
  module.exports = nothing;`;

// What is changed in the library, by file; a build fails when a text is no longer there.
const MENDED = {
  // A recursive function counts once in its total.
  'FlameGraphTopTableContainer.js': [
    ['const label = data.getLabel(i);',
     `const label = data.getLabel(i);
    const depth = data.getLevel(i);
    path.length = depth;
    const within = path.includes(label);
    path.push(label);`],
    ['let filteredTable = {};', 'let filteredTable = {}; const path = [];'],
    ['filteredTable[label].total + value : value;', 'filteredTable[label].total + (within ? 0 : value) : within ? 0 : value;'],
    ['filteredTable[label].totalRight + valueRight : valueRight;',
     'filteredTable[label].totalRight + (within ? 0 : valueRight) : within ? 0 : valueRight;'],
  ],
  // A flame grows from the bottom (src/orientation.js). Not in the sandwich view, which has callers above and callees
  // below, and alone says that nothing collapses.
  'rendering.js': [
    ['    collapsedMap\n  } = options;', '    collapsedMap,\n    upright\n  } = options;'],
    ['(item, x, y, width, height, label, muted) => {',
     `(item, x, fromTop, width, height, label, muted) => {
        const y = upright ? (depth - 1) * PIXELS_PER_LEVEL - fromTop : fromTop;`],
    ['    mutedColor\n  ]);', '    mutedColor,\n    depth,\n    upright\n  ]);'],
  ],
  'FlameGraphCanvas.js': [
    ["import { useMeasure } from 'react-use';", `import { useMeasure } from 'react-use';
import { useFlame } from 'perfstream/orientation';`],
    ['const graphRef = useRef(null);', `const graphRef = useRef(null);
  const upright = useFlame() && direction === "children" && collapsing;`],
    ['    collapsedMap\n  });', '    collapsedMap,\n    upright\n  });'],
    ['        collapsedMap\n      );', '        collapsedMap,\n        upright\n      );'],
    ['          collapsedMap\n        );', '          collapsedMap,\n          upright\n        );'],
    ['[data, rangeMin, rangeMax, totalViewTicks, root, direction, depth, collapsedMap]',
     '[data, rangeMin, rangeMax, totalViewTicks, root, direction, depth, collapsedMap, upright]'],
    ['setMousePosition, root, direction, depth, collapsedMap]',
     'setMousePosition, root, direction, depth, collapsedMap, upright]'],
    ['totalTicks, rangeMin, collapsedMap) => {', 'totalTicks, rangeMin, collapsedMap, upright) => {'],
    ['const levelIndex = Math.floor(pos.y / (PIXELS_PER_LEVEL / window.devicePixelRatio));',
     `const fromTop = Math.floor(pos.y / (PIXELS_PER_LEVEL / window.devicePixelRatio));
  const levelIndex = upright ? depth - 1 - fromTop : fromTop;`],
  ],
};

const plugin = {
  name: 'perfstream',
  setup(b) {
    // One React for all: the library brings a second one, whose hooks the first would not know.
    b.onResolve({ filter: /^react(\/jsx-runtime)?$/ }, (a) =>
      a.pluginData ? undefined : b.resolve(a.path, { kind: a.kind, resolveDir: process.cwd(), pluginData: {} }));
    b.onResolve({ filter: UNUSED }, (a) => ({ path: a.path, namespace: 'unused' }));
    b.onLoad({ filter: /.*/, namespace: 'unused' }, () => ({ contents: NOTHING, loader: 'js' }));
    b.onLoad({ filter: /moment-timezone.*latest\.json$/ }, () => ({
      contents: '{"version": "", "zones": [], "links": [], "countries": []}', loader: 'json',
    }));
    b.onResolve({ filter: /^perfstream\/orientation$/ }, () => ({ path: path.resolve('src/orientation.js') }));
    b.onLoad({ filter: /flamegraph.*(FlameGraphTopTableContainer|rendering|FlameGraphCanvas)\.js$/ }, (a) => {
      let text = readFileSync(a.path, 'utf8');
      for (const [was, becomes] of MENDED[path.basename(a.path)]) {
        if (text.split(was).length !== 2) throw new Error(`not there once: ${was}`);
        text = text.replace(was, becomes);
      }
      return { contents: text, loader: 'js' };
    });
  },
};

const result = await build({
  entryPoints: ['src/main.jsx'], bundle: true, minify: true, write: false, metafile: true, outfile: 'viewer.js',
  define: { 'process.env.NODE_ENV': '"production"' },
  loader: { '.css': 'empty', '.svg': 'dataurl' },
  legalComments: 'none', charset: 'ascii', target: ['es2020'], plugins: [plugin],
});

export function sources() {
  const hash = createHash('sha256');
  for (const name of ['package.json', 'package-lock.json', 'build.mjs', ...readdirSync('src').sort().map((n) => `src/${n}`)])
    hash.update(readFileSync(name));
  return hash.digest('hex');
}

const text = result.outputFiles[0].text.replaceAll('</script', '<\\/script');
writeFileSync('../static/viewer.js', `/* Built from dashboards/web/viewer; licences: LICENSES.txt; sources: ${sources()} */\n${text}`);

const inputs = result.metafile.outputs['viewer.js'].inputs;
const folders = new Set(
  Object.keys(inputs).filter((name) => inputs[name].bytesInOutput && name.startsWith('node_modules/'))
    .map((name) => name.match(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)/)[1]));
const notices = [];
for (const folder of [...folders].sort()) {
  const about = JSON.parse(readFileSync(path.join(folder, 'package.json')));
  const file = readdirSync(folder).find((name) => /^(licen[cs]e|copying)(\.|$)/i.test(name));
  const license = typeof about.license === 'string' ? about.license : about.license?.type ?? about.licenses?.[0]?.type ?? '';
  if (!license && !file) throw new Error(`no licence in ${folder}`);
  const full = file && existsSync(path.join(folder, file)) ? readFileSync(path.join(folder, file), 'utf8').trim() : '';
  notices.push([`${about.name} ${about.version}`, license, license === 'Apache-2.0' ? '' : full]);
}
writeFileSync('../static/LICENSES.txt',
  'The packages in viewer.js, and their licences. The Apache License 2.0 stands in the LICENSE file of perfstream.\n\n'
  + notices.map(([name, license, full]) => `${'='.repeat(80)}\n${name}: ${license}\n${full ? `\n${full}\n` : ''}`).join('\n'));
console.log(`${text.length} bytes, ${notices.length} packages: ${[...new Set(notices.map((n) => n[1]))].sort().join(', ')}`);
