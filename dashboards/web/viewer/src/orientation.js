// Which way a graph grows: from the top (an icicle, what the library draws) or from the bottom (a flame). The library has
// no such option; `build.mjs` makes its canvas ask here.
import { useSyncExternalStore } from 'react';

const waiting = new Set();
let flame = false;

export function turn(to) {
  if (flame === to) return;
  flame = to;
  waiting.forEach((call) => call());
}

function subscribe(call) {
  waiting.add(call);
  return () => waiting.delete(call);
}

export const useFlame = () => useSyncExternalStore(subscribe, () => flame);
