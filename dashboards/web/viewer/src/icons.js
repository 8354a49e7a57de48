// The library fetches its icons from a Grafana server. These stand in for the few that a flame graph has.
const svg = (body) => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">${body}</svg>`;
const ICONS = {
  'align-left': svg('<path d="M4 6h16M4 12h10M4 18h13"/>'),
  'align-right': svg('<path d="M4 6h16M10 12h10M7 18h13"/>'),
  'angle-double-down': svg('<path d="M7 6l5 5 5-5M7 13l5 5 5-5"/>'),
  'angle-double-up': svg('<path d="M7 18l5-5 5 5M7 11l5-5 5 5"/>'),
  'angle-right': svg('<path d="M9 6l6 6-6 6"/>'),
  'arrow-down': svg('<path d="M12 5v14M6 13l6 6 6-6"/>'),
  'arrow-up': svg('<path d="M12 19V5M6 11l6-6 6 6"/>'),
  copy: svg('<path d="M9 9h10v10H9zM5 15V5h10"/>'),
  eye: svg('<path d="M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12z"/><circle cx="12" cy="12" r="3"/>'),
  'gf-show-context': svg('<path d="M4 4h16v5H4zM7 15h10v5H7zM12 9v6"/>'),
  'history-alt': svg('<path d="M4 12a8 8 0 1 0 3-6.2L4 8M4 4v4h4M12 8v4l3 2"/>'),
  search: svg('<circle cx="11" cy="11" r="6"/><path d="M16 16l4 4"/>'),
  times: svg('<path d="M6 6l12 12M18 6L6 18"/>'),
};

const fetched = window.fetch.bind(window);
window.fetch = (resource, options) => {
  const found = /\/img\/icons\/[^?]*\/([a-z-]+)\.svg/.exec(String(resource?.url ?? resource));
  if (!found) return fetched(resource, options);
  const text = ICONS[found[1]] ?? svg('<circle cx="12" cy="12" r="2"/>');
  return Promise.resolve(new Response(text, { headers: { 'Content-Type': 'image/svg+xml' } }));
};
