// A sheet to draw on, and pictures of what the model makes of it.

const SHEET = 256; // CSS pixels of the longest side
const MAP = 46, MAP_GAP = 4;

function render({ model, el }) {
  let view = model.get("view");
  let wanted = copied(view.state);
  let cursor = [view.width / 2, view.height / 2]; // of the keyboard's pen
  let keys = false; // the cursor is seen
  let penDown = false;
  let layers = []; // one canvas and one caption for each

  const index = make("input", { type: "number", min: 0, max: view.num_digits - 1, step: 1,
    placeholder: "none", onchange: () => {
      const number = index.value === "" ? null : Number(index.value);
      set({ strokes: [], index: number });
    } });
  const button = (label, onclick) => make("button", { type: "button", onclick }, label);
  const controls = make("div", { class: "blitz-controls" },
    button("Clear", () => { lift(); set({ strokes: [], index: null }); }),
    button("Undo stroke", () => { lift(); set({ strokes: wanted.strokes.slice(0, -1) }); }),
    make("label", {}, "test digit", index),
    button("Next", () => {
      const next = wanted.index === null ? 0 : (wanted.index + 1) % view.num_digits;
      set({ strokes: [], index: next });
    }));
  const sheet = make("canvas", { tabindex: 0, role: "application", onkeydown: keyed,
    onblur: () => { keys = false; lift(); draw(); },
    "aria-label": "Sheet to draw a digit on. Arrow keys move the pen, Space sets it down and "
      + "lifts it, Backspace takes the last stroke back." });
  const gradient = make("canvas", { role: "img" });
  const caption = make("figcaption");
  const answers = make("div", { class: "blitz-answers", role: "group",
    "aria-label": "The model's answers. Choose one to see the gradient of its score." });
  const status = make("div", { class: "blitz-status", role: "status", "aria-live": "polite" });
  const pen = make("div", { class: "blitz-pen", role: "status", "aria-live": "polite" });
  const maps = make("div");
  const root = make("div", { class: "blitz-explorer" }, controls, status,
    make("div", { class: "blitz-row" },
      make("figure", {}, sheet, make("figcaption", {}, "draw here; the model sees these pixels"), pen),
      make("figure", {}, gradient, caption), answers),
    maps);
  el.append(root);

  const python = asking(model, show, complain);
  const unfollow = following(root, draw);
  sheet.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    sheet.setPointerCapture(event.pointerId);
    keys = false;
    lift();
    set({ strokes: [...wanted.strokes, [at(event)]] });
  });
  sheet.addEventListener("pointermove", (event) => {
    if (!(event.buttons & 1) || !sheet.hasPointerCapture(event.pointerId)) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) extend(at(each));
  });
  show(view, true);

  function set(change) {
    wanted = { ...wanted, ...change };
    python.ask(wanted);
  }

  function complain(text) {
    status.classList.add("blitz-problem");
    status.textContent = text;
  }

  // Extend the last stroke to a point, unless it lies hardly further on.
  function extend(point) {
    if (!wanted.strokes.length) return;
    const stroke = wanted.strokes.at(-1);
    const [x, y] = stroke.at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) < 0.4) return;
    set({ strokes: [...wanted.strokes.slice(0, -1), [...stroke, point]] });
  }

  function at(event) {
    const [x, y] = pointed(sheet, event);
    const scale = scaleOf();
    return [x / scale, y / scale];
  }

  function keyed(event) {
    const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    if (event.key in moves) {
      const [right, down] = moves[event.key];
      const within = (value, side) => Math.max(0.5, Math.min(side - 0.5, value));
      cursor = [within(cursor[0] + right, view.width), within(cursor[1] + down, view.height)];
      if (penDown) extend(cursor);
    } else if (event.key === " ") {
      penDown = !penDown;
      if (penDown) set({ strokes: [...wanted.strokes, [cursor]] });
    } else if (event.key === "Backspace") {
      lift();
      set({ strokes: wanted.strokes.slice(0, -1) });
    } else return;
    event.preventDefault();
    keys = true;
    const [column, row] = cursor.map(Math.floor);
    pen.textContent = `pen ${penDown ? "down" : "up"}, row ${row}, column ${column}`;
    draw();
  }

  function lift() {
    penDown = false;
    pen.textContent = "";
  }

  function show(next, settled) {
    view = next;
    if (settled) {
      wanted = copied(view.state);
      if (document.activeElement !== index) index.value = view.state.index ?? "";
    }
    if (view.problem) complain(view.problem);
    else {
      status.classList.remove("blitz-problem");
      status.textContent = [view.told, view.left_out].filter(Boolean).join(" ");
    }
    fillAnswers();
    draw();
    root.dataset.state = JSON.stringify(view.state);
  }

  function fillAnswers() {
    while (answers.children.length > view.rows.length) answers.lastChild.remove();
    while (answers.children.length < view.rows.length) {
      const row = make("button", { type: "button", class: "blitz-answer" },
        make("span"), make("span", { class: "blitz-bar" }), make("span"), make("span"));
      row.addEventListener("click", () => {
        const answer = Number(row.dataset.answer);
        set({ answer: wanted.answer === answer ? null : answer }); // a second time: the highest
      });
      answers.append(row);
    }
    const best = Math.max(...view.rows.map((row) => row.probability));
    for (const [n, { answer, score, probability }] of view.rows.entries()) {
      const row = answers.children[n];
      const [name, bar, part, raw] = row.children;
      row.dataset.answer = answer;
      row.setAttribute("aria-pressed", answer === view.answer);
      row.classList.toggle("blitz-best", probability === best);
      name.textContent = answer;
      bar.style.width = `${Math.max(1, 100 * probability)}px`;
      part.textContent = `${(100 * probability).toFixed(1)}%`;
      raw.textContent = score.toFixed(2).replace("-", "\u2212");
      row.title = "probability (softmax of the scores) and score";
    }
  }

  function scaleOf() {
    return SHEET / Math.max(view.width, view.height);
  }

  function draw() {
    if (!root.isConnected) return; // it has no colours and no width yet
    const look = palette(root);
    const { width, height } = view;
    const scale = scaleOf();
    let context = sized(sheet, width * scale, height * scale);
    const pixels = signed(view.picture);
    paint(context, pixels, 0, width, height, 0, 0, scale, { ...look, plus: look.ink });
    context.strokeStyle = look.line;
    context.lineWidth = 1;
    context.strokeRect(0.5, 0.5, width * scale - 1, height * scale - 1);
    context.setLineDash([4, 4]);
    context.strokeRect(...view.frame.map((length) => length * scale));
    context.setLineDash([]);
    if (keys) cross(context, cursor.map((place) => place * scale), penDown, look);

    const slopes = signed(view.gradient);
    context = sized(gradient, width * scale, height * scale);
    if (slopes.length) paint(context, slopes, 0, width, height, 0, 0, scale, look);
    context.strokeStyle = look.line;
    context.strokeRect(0.5, 0.5, width * scale - 1, height * scale - 1);
    const words = slopes.length
      ? `gradient of score ${view.answer}: more ink raises it where orange, lowers it where blue`
      : "no gradient";
    if (caption.textContent !== words) caption.textContent = words;
    gradient.setAttribute("aria-label", words);
    drawLayers(look);
  }

  function drawLayers(look) {
    while (layers.length > view.layers.length) layers.pop().figure.remove();
    while (layers.length < view.layers.length) {
      const layer = { canvas: make("canvas", { role: "img" }), caption: make("figcaption") };
      layer.figure = make("figure", { class: "blitz-layer" }, layer.caption, layer.canvas);
      layer.figure.style.margin = "8px 0 0";
      layers.push(layer);
      maps.append(layer.figure);
    }
    const across = Math.max(1, Math.floor((root.clientWidth + MAP_GAP) / (MAP + MAP_GAP)));
    for (const [n, layer] of view.layers.entries()) {
      const { canvas, caption } = layers[n];
      const scale = MAP / Math.max(layer.width, layer.height);
      const columns = Math.min(across, layer.shown);
      const lines = Math.ceil(layer.shown / columns);
      const context = sized(canvas, columns * (MAP + MAP_GAP), lines * (MAP + MAP_GAP));
      const values = signed(layer.maps);
      for (let map = 0; map < layer.shown; map++) {
        const left = (map % columns) * (MAP + MAP_GAP);
        const top = Math.floor(map / columns) * (MAP + MAP_GAP);
        paint(context, values, map * layer.width * layer.height, layer.width, layer.height,
          left, top, scale, look);
        context.strokeStyle = look.line;
        context.lineWidth = 0.5;
        context.strokeRect(left, top, layer.width * scale, layer.height * scale);
      }
      const number = (value) => value.toFixed(2).replace("-", "\u2212");
      const some = layer.shown < layer.channels ? `${layer.shown} of ${layer.channels}` : layer.shown;
      const words = `${layer.name}: ${some} maps of ${layer.height}x${layer.width}, `
        + `from ${number(layer.low)} to ${number(layer.high)}`;
      caption.textContent = words;
      canvas.setAttribute("aria-label", words);
    }
  }

  return () => {
    python.stop();
    unfollow();
  };
}

function copied(state) {
  return { ...state, strokes: state.strokes.map((stroke) => [...stroke]) };
}

// Return the signed bytes that Python sent.
function signed(data) {
  return data ? new Int8Array(data.buffer, data.byteOffset, data.byteLength) : new Int8Array();
}

// Draw signed bytes as an image: paper at 0, one colour for more and one for less.
function paint(context, values, from, width, height, left, top, scale, look) {
  const image = new ImageData(width, height);
  for (let n = 0; n < width * height; n++) {
    const value = values[from + n] / 127;
    const colour = value < 0 ? look.minus : look.plus;
    const part = Math.abs(value);
    for (let channel = 0; channel < 3; channel++)
      image.data[4 * n + channel] = look.paper[channel] * (1 - part) + colour[channel] * part;
    image.data[4 * n + 3] = 255;
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, top, width * scale, height * scale);
}

function cross(context, [x, y], filled, look) {
  context.strokeStyle = look.vermilion;
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - 9, y);
  context.lineTo(x + 9, y);
  context.moveTo(x, y - 9);
  context.lineTo(x, y + 9);
  context.stroke();
  if (filled) {
    context.beginPath();
    context.arc(x, y, 5, 0, 7);
    context.fillStyle = look.vermilion;
    context.fill();
  }
}

export default { render };
