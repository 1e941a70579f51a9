// Draws the window over its grids, and asks for settings and for the window's place.

const LABELS = {
  size: "input", kernel_size: "kernel", stride: "stride", padding: "padding", dilation: "dilation",
};
const STEP = 450; // milliseconds from one place to the next
const GAP = 40, TITLE = 24, MARGIN = 3; // CSS pixels
const LARGEST_CELL = 34, LEGIBLE = 15;

function render({ model, el }) {
  let view = model.get("view");
  let wanted = { ...view.state };
  let playing = null;
  let laid = []; // the grids in which a place can be chosen, as they lie on the canvas

  const op = make("select", { onchange: () => set({ op: op.value }) });
  for (const [value, label] of Object.entries(view.ops)) op.append(make("option", { value }, label));
  const controls = make("div", { class: "blitz-controls" }, make("label", {}, "operation", op));
  const sliders = {};
  for (const [name, [min, max]] of Object.entries(view.limits)) {
    const shown = make("output");
    const slider = make("input", { type: "range", min, max, step: 1, oninput: () => {
      shown.textContent = slider.value;
      set({ [name]: Number(slider.value) });
    } });
    sliders[name] = { slider, shown };
    controls.append(make("label", {}, LABELS[name], slider, shown));
  }
  const step = make("button", { type: "button", onclick: () => { pause(); forward(); } }, "Step");
  const play = make("button", { type: "button", onclick: () => (playing ? pause() : start()) });
  controls.append(make("span", {}, step, " ", play));
  const canvas = make("canvas", { tabindex: 0, role: "application", onkeydown: keyed,
    "aria-label": "The window on its grids. Arrow keys move it, Space steps it on." });
  const sum = make("code");
  const status = make("div", { class: "blitz-status", role: "status", "aria-live": "polite" });
  const root = make("div", { class: "blitz-explorer" }, controls, canvas,
    make("div", {}, "output along a side: ", sum), status);
  el.append(root);

  const python = asking(model, show, complain);
  const unfollow = following(root, draw);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pause();
    choose(event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && choose(event));
  pause();
  show(view, true);

  function set(change) {
    wanted = { ...wanted, ...change };
    python.ask(wanted);
  }

  function complain(text) {
    pause();
    status.classList.add("blitz-problem");
    status.textContent = text;
  }

  function show(next, settled) {
    view = next;
    if (settled) {
      wanted = { ...view.state };
      op.value = view.state.op;
      for (const [name, { slider, shown }] of Object.entries(sliders)) {
        slider.value = view.state[name];
        shown.textContent = view.state[name];
      }
    }
    sum.textContent = view.sum || "none";
    if (view.problem) complain(view.problem);
    else {
      status.classList.remove("blitz-problem");
      status.textContent = view.told;
    }
    draw();
    root.dataset.state = JSON.stringify(view.state);
  }

  // The number of places along a side, or 0 where the window does not fit.
  function count() {
    const { left, right } = view;
    return right ? Math.min(left.places.length, right.places.length) : 0;
  }

  function move(down, right) {
    const within = (place) => Math.max(0, Math.min(count() - 1, place));
    set({ row: within(wanted.row + down), column: within(wanted.column + right) });
  }

  // Step on, row by row. Return whether this was the last place.
  function forward() {
    const last = count() - 1;
    if (wanted.column < last) set({ column: wanted.column + 1 });
    else if (wanted.row < last) set({ row: wanted.row + 1, column: 0 });
    else set({ row: 0, column: 0 });
    return wanted.row >= last && wanted.column >= last;
  }

  function start() {
    play.textContent = "Pause";
    playing = setInterval(() => forward() && pause(), STEP);
  }

  function pause() {
    clearInterval(playing);
    playing = null;
    play.textContent = "Play";
  }

  function keyed(event) {
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key in moves) move(...moves[event.key]);
    else if (event.key === "Home") set({ row: 0, column: 0 });
    else if (event.key === "End") move(count(), count());
    else if (event.key === " ") forward();
    else return;
    event.preventDefault();
    pause();
  }

  function choose(event) {
    const [x, y] = pointed(canvas, event);
    for (const { grid, left, top, cell, side } of laid) {
      if (x < left || x > left + side * cell || y < top || y > top + side * cell) continue;
      const near = (at) => {
        const offsets = grid.places.map((place) => Math.abs(place + grid.span / 2 - at));
        return offsets.indexOf(Math.min(...offsets));
      };
      const [row, column] = [near((y - top) / cell), near((x - left) / cell)];
      if (row !== wanted.row || column !== wanted.column) set({ row, column });
      return;
    }
  }

  function draw() {
    if (!root.isConnected) return; // it has no colours and no width yet
    const grids = [view.left, view.kernel, view.right].filter(Boolean);
    const sides = grids.map((grid) => grid.values.length);
    const room = Math.max(240, root.clientWidth - 2 * MARGIN) - GAP * (grids.length - 1);
    const cells = sides.reduce((sum, side) => sum + Math.max(side, 3), 0);
    const cell = Math.max(3, Math.min(LARGEST_CELL, Math.floor(room / cells)));
    const height = Math.max(...sides) * cell + TITLE + 2 * MARGIN;
    const width = cells * cell + GAP * (grids.length - 1) + 2 * MARGIN;
    const context = sized(canvas, width, height);
    const look = palette(root);
    laid = [];
    let left = MARGIN;
    for (const [n, grid] of grids.entries()) {
      const side = sides[n];
      const top = TITLE + MARGIN;
      drawGrid(context, grid, left, top, cell, look, grid === view.kernel);
      laid.push({ grid, left, top, cell, side });
      left += Math.max(side, 3) * cell;
      if (n + 1 < grids.length) {
        context.fillStyle = look.text;
        context.font = "18px sans-serif";
        context.textAlign = "center";
        const sign = grids[n + 1] === view.kernel ? "\u00d7" : "\u2192";
        context.fillText(sign, left + GAP / 2, top + Math.min(...sides) * cell / 2);
      }
      left += GAP;
    }
    laid = laid.filter(({ grid }) => grid.places.length);
  }

  return () => {
    pause();
    python.stop();
    unfollow();
  };
}

function drawGrid(context, grid, left, top, cell, look, bold) {
  const { values, border, unread } = grid;
  const side = values.length;
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillStyle = look.text;
  context.font = "13px sans-serif";
  context.fillText(grid.title, left, top - TITLE / 2);

  // What no window reads is hatched.
  context.strokeStyle = look.vermilion;
  context.lineWidth = 1;
  for (const line of unread) {
    hatch(context, left + line * cell, top + border * cell, cell, (side - 2 * border) * cell);
    hatch(context, left + border * cell, top + line * cell, (side - 2 * border) * cell, cell);
  }
  const marked = new Set();
  if (grid.at) {
    for (const row of grid.cells)
      for (const column of grid.cells) marked.add(`${grid.at[0] + row},${grid.at[1] + column}`);
  }
  context.textAlign = "center";
  context.font = `${bold ? "bold " : ""}${Math.min(14, cell * 0.5)}px sans-serif`;
  for (const [row, line] of values.entries()) {
    for (const [column, value] of line.entries()) {
      const [x, y] = [left + column * cell, top + row * cell];
      const inside = (n) => n >= border && n < side - border;
      if (marked.has(`${row},${column}`)) {
        context.globalAlpha = 0.35;
        context.fillStyle = look.blue;
        context.fillRect(x, y, cell, cell);
        context.globalAlpha = 1;
      }
      context.setLineDash(inside(row) && inside(column) ? [] : [2, 2]);
      context.strokeStyle = look.line;
      context.strokeRect(x + 0.5, y + 0.5, cell, cell);
      if (cell >= LEGIBLE) {
        context.fillStyle = inside(row) && inside(column) ? look.text : look.line;
        context.fillText(value, x + cell / 2, y + cell / 2 + 1);
      }
    }
  }
  context.setLineDash([]);
  if (grid.at) {
    const [row, column] = grid.at;
    context.strokeStyle = look.blue;
    context.lineWidth = 3;
    context.strokeRect(left + column * cell + 0.5, top + row * cell + 0.5,
      grid.span * cell, grid.span * cell);
  }
}

function hatch(context, left, top, width, height) {
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.beginPath();
  for (let at = -height; at < width; at += 7) {
    context.moveTo(left + at, top + height);
    context.lineTo(left + at + height, top);
  }
  context.stroke();
  context.restore();
}

export default { render };
