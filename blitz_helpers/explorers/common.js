// What both explorers share: asking Python for a view, controls, colours, canvases.
// Python computes every number that is drawn; the scripts only lay them out.

const NO_ANSWER = 4000; // milliseconds
const GONE =
  "No answer from Python. If it is still at work on another cell, wait; if not, run this cell again.";

// Ask Python for one state at a time, always the latest. `show` gets each view, and whether it is
// the last one asked for.
function asking(model, show, say) {
  const own = Math.random().toString(36).slice(2);
  let number = 0;
  let asked = null;
  let next = null;
  let timer = null;

  function send(state) {
    asked = `${own}/${++number}`;
    clearTimeout(timer);
    timer = setTimeout(() => say(GONE), NO_ANSWER);
    try {
      model.send({ number: asked, state });
    } catch {
      say(GONE); // the connection is closed
    }
  }

  function answered() {
    const view = model.get("view");
    const mine = view.answers === asked;
    if (mine) {
      clearTimeout(timer);
      asked = null;
    }
    show(view, asked === null && next === null);
    if (mine && next !== null) {
      const state = next;
      next = null;
      send(state);
    }
  }

  model.on("change:view", answered);
  return {
    ask(state) {
      if (asked === null) send(state);
      else next = state;
    },
    stop() {
      clearTimeout(timer);
      model.off("change:view", answered);
    },
  };
}

// Make an element with attributes and children. One that can have the focus keeps its keys: in a
// notebook's command mode an arrow would select the next cell, and a letter would change this one.
function make(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  if (["button", "canvas", "input", "select"].includes(kind))
    element.addEventListener("keydown", (event) => notebooks(event) || event.stopPropagation());
  return element;
}

// Shift+Enter, which runs the cell, Ctrl+S and their like stay the notebook's.
function notebooks(event) {
  return event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter");
}

// JupyterLab and Notebook 7 listen on the document, and look for this attribute.
window.addEventListener("keydown", (event) => {
  if (event.target.closest?.(".blitz-explorer"))
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !notebooks(event));
}, true);

// The colours of the plots, lighter where the page is dark.
// Source: M. Okabe and K. Ito, "Color Universal Design", 2008.
function palette(root) {
  const text = getComputedStyle(root).color;
  const dot = new OffscreenCanvas(1, 1).getContext("2d");
  dot.fillStyle = text;
  dot.fillRect(0, 0, 1, 1);
  const [red, green, blue] = dot.getImageData(0, 0, 1, 1).data;
  const dark = red + green + blue > 3 * 128; // light letters on a dark page
  return dark
    ? { text, line: "#8a8a8a", paper: [32, 32, 32], ink: [245, 245, 245],
        blue: "#56B4E9", vermilion: "#F0803C", plus: [255, 140, 70], minus: [86, 180, 233] }
    : { text, line: "#767676", paper: [255, 255, 255], ink: [20, 20, 20],
        blue: "#0072B2", vermilion: "#D55E00", plus: [213, 94, 0], minus: [0, 114, 178] };
}

// Size a canvas for sharp lines and return its context, scaled to CSS pixels.
function sized(canvas, width, height) {
  const sharpness = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * sharpness), Math.round(height * sharpness)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(sharpness, 0, 0, sharpness, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// Call `redraw` when the element comes into the page, and when the theme or the width changes.
function following(root, redraw) {
  const sizes = new ResizeObserver(redraw);
  sizes.observe(root);
  const themes = new MutationObserver(redraw);
  for (const element of [document.documentElement, document.body])
    themes.observe(element, { attributeFilter: ["class", "style", "theme", "data-theme",
      "data-jp-theme-name", "data-jp-theme-light", "data-vscode-theme-kind"] });
  return () => {
    sizes.disconnect();
    themes.disconnect();
  };
}

// Where a pointer is, in CSS pixels from the canvas's corner.
function pointed(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
