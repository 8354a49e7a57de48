"use strict";
// A flame graph on a canvas. Nodes come in depth-first pre-order, so a subtree is the range [i, end[i]) and whatever is
// out of sight or thinner than a pixel is stepped over whole: the cost of a frame is what is seen, not what is there.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { names, unit } = data;
  const level = Uint32Array.from(data.level), value = Float64Array.from(data.value), own = Float64Array.from(data.self);
  const label = Uint32Array.from(data.label), count = level.length;
  // Of a difference: each node's share of either whole; its width is both together.
  const before = data.before && Float64Array.from(data.before), after = data.after && Float64Array.from(data.after);
  const start = new Float64Array(count), end = new Uint32Array(count), parent = new Int32Array(count).fill(-1);
  let deepest = 0;
  {
    const open = [], filled = [];
    for (let i = 0; i < count; i++) {
      while (open.length > level[i]) end[open.pop()] = i;
      const up = open.length ? open[open.length - 1] : -1;
      parent[i] = up;
      start[i] = up < 0 ? 0 : filled[level[up]];
      if (up >= 0) filled[level[up]] += value[i];
      filled[level[i]] = start[i];
      open.push(i);
      if (level[i] > deepest) deepest = level[i];
    }
    while (open.length) end[open.pop()] = count;
  }
  const whole = count ? value[0] : 0;
  const ROW = 19, THIN = 0.4;
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas"), scroll = $("scroll"), space = $("space"), tip = $("tip"), status = $("status");
  const pen = canvas.getContext("2d", { alpha: false });
  let zoomed = 0, icicle = true, hovered = -1, hits = null, queued = false, width = 0, height = 0;
  let rowsShown = deepest + 1;

  const short = (n) => (n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toPrecision(3));
  function human(v) {
    if (unit === "nanoseconds") {
      for (const [name, size] of [["h", 3600e9], ["min", 60e9], ["s", 1e9], ["ms", 1e6], ["µs", 1e3]])
        if (v >= size) return short(v / size) + " " + name;
      return v + " ns";
    }
    const bytes = unit === "bytes", base = bytes ? 1024 : 1000;
    const steps = bytes ? ["B", "KiB", "MiB", "GiB", "TiB"] : ["", "k", "M", "G", "T"];
    let s = 0;
    while (v >= base && s < 4) { v /= base; s++; }
    return (short(v) + " " + steps[s]).trim();
  }
  const share = (v, of) => (of ? ((100 * v) / of).toFixed(2) : "0.00") + " %";

  // Colour by name, so that a function looks the same everywhere; kernel, runtime markers and the rest differ in hue.
  function hash(text) {
    let h = 2166136261;
    for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
    return h >>> 0;
  }
  const colours = names.map((name) => {
    const h = hash(name), a = (h % 97) / 97, b = ((h >>> 8) % 89) / 89;
    if (name === "total") return ["#d8d3ca", "#8f8b85"];
    if (name === "(other)" || name[0] === "[") return [`hsl(35 8% ${80 + a * 5}%)`, `hsl(35 5% ${50 + a * 5}%)`];
    if (name.endsWith("_[k]")) // as the agent marks the kernel's functions
      return [`hsl(${200 + a * 22} ${50 + b * 12}% ${74 + b * 6}%)`, `hsl(${200 + a * 22} ${38 + b * 10}% ${56 + b * 6}%)`];
    return [`hsl(${8 + a * 40} ${78 + b * 12}% ${67 + b * 9}%)`, `hsl(${8 + a * 40} ${58 + b * 12}% ${55 + b * 8}%)`];
  });
  // Red took a greater share than before, blue a smaller one; as strong as the change is against the larger of the two.
  function changeColour(i, theme) {
    const change = after[i] - before[i], most = Math.max(after[i], before[i]);
    const strength = most ? Math.min(1, Math.abs(change) / most) * Math.min(1, Math.abs(change) / 0.001) : 0;
    if (strength < 0.02) return theme ? "#8f8b85" : "#d8d3ca";
    return `hsl(${change > 0 ? 8 : 212} ${20 + 60 * strength}% ${(theme ? 62 : 88) - (theme ? 12 : 26) * strength}%)`;
  }
  const percent = (v) => (100 * v).toFixed(2) + " %";
  const points = (v) => (v < 0 ? "−" : "+") + (100 * Math.abs(v)).toFixed(2) + " points";
  const dark = () => document.documentElement.dataset.theme === "dark";
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rowTop = (lvl) => (icicle ? lvl : rowsShown - 1 - lvl) * ROW;
  const x0 = () => start[zoomed];
  const scale = () => (value[zoomed] ? width / value[zoomed] : 0);

  function measure() {
    width = Math.max(50, scroll.clientWidth);
    height = Math.max(ROW, scroll.clientHeight);
    rowsShown = 1;
    for (let i = zoomed; i < end[zoomed]; i++) if (level[i] >= rowsShown) rowsShown = level[i] + 1;
    space.style.height = rowsShown * ROW + 4 + "px";
    if (!icicle && rowsShown * ROW < height) space.style.height = height + "px";
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  }
  const shiftDown = () => (!icicle && rowsShown * ROW < height ? height - rowsShown * ROW : 0);

  // Calls visit(i, x, w) for every node that can be seen; the zoomed node's ancestors take the full width.
  function walk(visit) {
    for (let a = parent[zoomed]; a >= 0; a = parent[a]) visit(a, 0, width);
    const from = x0(), k = scale();
    for (let i = zoomed; i < end[zoomed]; ) {
      const w = value[i] * k;
      if (w < THIN) { i = end[i]; continue; }
      visit(i, (start[i] - from) * k, w);
      i++;
    }
  }

  // The name, or as much of it as fits with an ellipsis; "" when that says nothing. Widths are measured once a name.
  const widths = new Float64Array(names.length);
  function fitted(n, room) {
    const name = names[n];
    if (!widths[n]) widths[n] = pen.measureText(name).width;
    if (widths[n] <= room) return name;
    let length = Math.floor((name.length * (room - 10)) / widths[n]);
    while (length > 1 && pen.measureText(name.slice(0, length)).width > room - 10) length--;
    return length > 1 ? name.slice(0, length) + "…" : "";
  }

  let drawn = 0;
  function draw() {
    queued = false;
    const theme = dark() ? 1 : 0, scrolled = scroll.scrollTop, down = shiftDown();
    const page = css("--page"), soft = css("--text"), textColour = css("--frame-text"), hitColour = dark() ? "#c77dff" : "#a43bd6";
    const hitText = dark() ? "#16120e" : "#ffffff";
    pen.fillStyle = page;
    pen.fillRect(0, 0, width, height);
    pen.font = "12px " + css("--font");
    pen.textBaseline = "middle";
    drawn = 0;
    const zoomLevel = level[zoomed];
    walk((i, x, w) => {
      const y = rowTop(level[i]) - scrolled + down;
      if (y + ROW < 0 || y > height) return;
      drawn++;
      const hit = hits && hits[label[i]];
      pen.globalAlpha = level[i] < zoomLevel ? 0.5 : hits && !hit ? 0.35 : 1;
      pen.fillStyle = hit ? hitColour : before ? changeColour(i, theme) : colours[label[i]][theme];
      pen.fillRect(x, y, w > 2 ? w - 1 : w, ROW - 1);
      if (i === hovered) {
        pen.globalAlpha = 1;
        pen.strokeStyle = css("--text");
        pen.strokeRect(x + 0.5, y + 0.5, Math.max(1, w - 2), ROW - 2);
      }
      if (w > 26) {
        const text = fitted(label[i], w - 7);
        if (text) {
          pen.globalAlpha = hits && !hit ? 0.7 : 1;
          pen.fillStyle = hit ? hitText : hits && theme ? soft : textColour;
          pen.fillText(text, x + 4, y + ROW / 2);
        }
      }
    });
    pen.globalAlpha = 1;
  }
  const redraw = () => { if (!queued) { queued = true; requestAnimationFrame(draw); } };

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top + scroll.scrollTop - shiftDown();
    if (x < 0 || x > width || y < 0) return -1;
    const row = Math.floor(y / ROW), lvl = icicle ? row : rowsShown - 1 - row;
    let found = -1;
    walk((i, left, w) => { if (level[i] === lvl && x >= left && x < left + w) found = i; });
    return found;
  }

  function details(i) {
    if (before) return `${percent(before[i])} → ${percent(after[i])} (${points(after[i] - before[i])})`;
    const of = zoomed ? ` · ${share(value[i], value[zoomed])} of view` : "";
    return `total ${human(value[i])} (${share(value[i], whole)}${of}) · self ${human(own[i])} (${share(own[i], whole)})`;
  }
  function hover(i, event) {
    if (i !== hovered) {
      hovered = i;
      status.textContent = i < 0 ? summary() : names[label[i]] + "  ·  " + details(i);
      canvas.style.cursor = i < 0 ? "default" : "pointer";
      redraw();
    }
    if (i < 0) { tip.hidden = true; return; }
    tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: names[label[i]] }));
    const lines = before
      ? [["before", percent(before[i])], ["after", percent(after[i])], ["change", points(after[i] - before[i])]]
      : [["total", value[i]], ["self", own[i]]].map(([word, v]) => [word, `${human(v)} · ${share(v, whole)}`]);
    for (const [word, text] of lines) {
      const line = document.createElement("div"), name = document.createElement("span");
      name.textContent = word + " ";
      line.append(name, text);
      tip.append(line);
    }
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)) + "px";
    const below = event.clientY + 18;
    tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : below) + "px";
  }
  const summary = () => (before ? `Red: a greater share than before; blue: a smaller one · ${count.toLocaleString("en")} nodes` : count ? `${human(whole)} in all · ${count.toLocaleString("en")} nodes · ${deepest} frames deep` : "Nothing recorded in this selection.");

  function zoom(i) {
    zoomed = Math.max(0, i);
    measure();
    const want = icicle ? rowTop(Math.max(0, level[zoomed] - 2)) : rowTop(level[zoomed]) + 3 * ROW - height;
    scroll.scrollTop = level[zoomed] * ROW < height - 3 * ROW && icicle ? 0 : Math.max(0, want);
    if (!icicle && !zoomed) scroll.scrollTop = space.offsetHeight;
    $("reset").disabled = !zoomed;
    const trail = [];
    for (let a = zoomed; a >= 0 && trail.length < 6; a = parent[a]) trail.unshift(a);
    $("path").replaceChildren();
    if (zoomed) {
      if (trail[0] !== 0) $("path").append("… ");
      trail.forEach((a, n) => {
        const step = document.createElement("button");
        step.type = "button";
        step.textContent = names[label[a]];
        step.title = names[label[a]];
        step.onclick = () => zoom(a);
        if (n) $("path").append("›");
        $("path").append(step);
      });
    } else $("path").append("Click a frame to zoom in");
    redraw();
  }

  function search(text) {
    const box = $("search");
    box.classList.remove("bad");
    hits = null;
    $("matched").textContent = "";
    if (text) {
      let pattern;
      try { pattern = new RegExp(text, "i"); } catch { box.classList.add("bad"); redraw(); return; }
      hits = names.map((name, n) => pattern.test(name));
      // Nested matches count once: a matching subtree is taken whole.
      let sum = 0;
      for (let i = 0; i < count; ) if (hits[label[i]]) { sum += value[i]; i = end[i]; } else i++;
      $("matched").textContent = "matched " + share(sum, whole);
    }
    redraw();
  }

  let moved = null;
  scroll.addEventListener("mousemove", (event) => {
    if (!moved) requestAnimationFrame(() => { const last = moved; moved = null; if (last) hover(at(last), last); });
    moved = event;
  });
  scroll.addEventListener("mouseleave", (event) => { moved = null; hover(-1, event); });
  scroll.addEventListener("scroll", redraw, { passive: true });
  canvas.addEventListener("click", (event) => { const i = at(event); if (i >= 0) zoom(i); });
  $("search").addEventListener("input", (event) => search(event.target.value));
  $("reset").addEventListener("click", () => zoom(0));
  function flip() {
    icicle = !icicle;
    $("flip").textContent = icicle ? "Flame" : "Icicle";
    zoom(zoomed);
  }
  $("flip").addEventListener("click", flip);
  $("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; redraw(); });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { if ($("search").value) { $("search").value = ""; search(""); } else zoom(0); }
    else if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey) return;
    else if (event.key === "/") { event.preventDefault(); $("search").focus(); }
    else if (event.key === "i") flip();
  });
  new ResizeObserver(() => { measure(); redraw(); }).observe(scroll);
  if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
  status.textContent = summary();
  zoom(0);
  // For tests and for the console: what is drawn and where.
  window.flamegraph = {
    count, details, get drawn() { return drawn; }, get zoomed() { return names[label[zoomed]]; }, draw, zoom, search,
    place(name) {
      let found = null;
      const down = shiftDown();
      walk((i, x, w) => { if (!found && names[label[i]] === name) found = { x, w, y: rowTop(level[i]) - scroll.scrollTop + down, i }; });
      return found;
    },
  };
})();
