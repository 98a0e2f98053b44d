"use strict";
// A photograph in one of its views, or in two with a divider between, and zoom to single pixels.
function startViewer(viewer) {
  const pictures = JSON.parse(viewer.querySelector(".pictures").textContent);
  const canvas = viewer.querySelector("canvas"), pen = canvas.getContext("2d");
  const divider = viewer.querySelector(".divider"), sides = [...viewer.querySelectorAll("select")];
  const state = viewer.querySelector("output"), firstErrors = +viewer.dataset.errors;
  const most = 32; // canvas pixels for a pixel of the photograph
  let picture = pictures[0], layers = [], region = -1, split = .5, queued = false, asked = 0;
  let scale = 1, x = 0, y = 0; // CSS pixels a pixel; the photograph's pixel in the upper left corner
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const whole = () => Math.min(size()[0] / picture.width, size()[1] / picture.height);
  const within = (value, low, high) => Math.min(Math.max(value, low), high);

  function settle() {
    scale = within(scale, whole(), Math.max(most, whole()));
    const fit = (at, all, shown) => all <= shown ? (all - shown) / 2 : within(at, 0, all - shown);
    x = fit(x, picture.width, size()[0] / scale);
    y = fit(y, picture.height, size()[1] / scale);
    canvas.classList.toggle("zoomed", scale > whole() * 1.01); // then it can be dragged
    if (!queued) { queued = true; requestAnimationFrame(draw); }
  }
  function layer(view, from, to) { // between two places across, in CSS pixels
    if (!layers[view] || to <= from) return;
    pen.save();
    pen.beginPath(); pen.rect(from, 0, to - from, size()[1]); pen.clip();
    pen.imageSmoothingEnabled = view === 0 && scale * devicePixelRatio < 2;
    pen.imageSmoothingQuality = "high";
    const thin = view >= firstErrors && scale * devicePixelRatio < 1; // else they vanish
    for (const [right, down] of thin ? [[0, 0], [.5, 0], [0, .5], [.5, .5]] : [[0, 0]])
      pen.drawImage(layers[view], right - x * scale, down - y * scale, picture.width * scale, picture.height * scale);
    pen.restore();
  }
  function grid([width, height]) {
    pen.strokeStyle = "rgb(128 128 128 / .35)"; pen.lineWidth = 1 / devicePixelRatio;
    pen.beginPath();
    for (let at = Math.ceil(x); (at - x) * scale < width; at++) { pen.moveTo((at - x) * scale, 0); pen.lineTo((at - x) * scale, height); }
    for (let at = Math.ceil(y); (at - y) * scale < height; at++) { pen.moveTo(0, (at - y) * scale); pen.lineTo(width, (at - y) * scale); }
    pen.stroke();
  }
  function draw() {
    queued = false;
    const [width, height] = size(), [left, right] = sides.map((side) => +side.value);
    const edge = left === right ? width : width * split;
    canvas.width = Math.round(width * devicePixelRatio); canvas.height = Math.round(height * devicePixelRatio);
    pen.scale(canvas.width / width, canvas.height / height);
    layer(0, 0, width);
    if (left) layer(left, 0, edge);
    if (right) layer(right, edge, width);
    if (scale >= 12) grid([width, height]);
    divider.hidden = left === right;
    divider.style.left = `${split * 100}%`;
    divider.setAttribute("aria-valuenow", Math.round(split * 100));
    for (const button of viewer.querySelectorAll("[data-view]"))
      button.setAttribute("aria-pressed", String(left === right && +button.dataset.view === left));
    viewer.querySelector("[data-do=next]").disabled = !picture.regions.length;
    viewer.dataset.scale = scale; viewer.dataset.drawn = picture.name;
    const zoom = scale < 1 ? `${Math.round(scale * 100)} %` : `${scale.toFixed(scale < 10 ? 1 : 0)} ×`;
    const visited = picture.regions[region];
    const where = visited ? `${region + 1} of ${picture.regions.length}: ${visited[4].toLocaleString("en")} pixels. ` : "";
    const text = `${picture.name}: ${picture.caption}. ${where}${picture.width} × ${picture.height} pixels, shown at ${zoom}.`;
    if (state.value !== text) state.value = text;
  }
  function zoom(factor, atX = size()[0] / 2, atY = size()[1] / 2) { // the pixel there stays there
    const pixel = [x + atX / scale, y + atY / scale];
    scale = within(scale * factor, whole(), Math.max(most, whole()));
    x = pixel[0] - atX / scale; y = pixel[1] - atY / scale;
    settle();
  }
  function choose(view) {
    for (const side of sides) side.value = view;
    settle();
  }
  function divide(share) {
    split = within(share, 0, 1);
    settle();
  }
  function showAll() {
    scale = 0; region = -1;
    settle();
  }
  function nextRegion() {
    if (!picture.regions.length) return;
    region = (region + 1) % picture.regions.length;
    const [left, top, wide, high] = picture.regions[region], [width, height] = size();
    const margin = Math.max(wide, high) / 2 + 12;
    scale = within(Math.min(width / (wide + 2 * margin), height / (high + 2 * margin)), whole(), most);
    x = left + wide / 2 - width / scale / 2; y = top + high / 2 - height / scale / 2;
    if (sides.every((side) => +side.value < firstErrors)) choose(firstErrors);
    settle();
  }
  async function show(number) {
    const turn = ++asked; // the last one asked for is shown, whichever is decoded first
    const chosen = pictures[number];
    for (const button of viewer.querySelectorAll("[data-picture]"))
      button.setAttribute("aria-pressed", String(+button.dataset.picture === number));
    const loaded = await Promise.all(chosen.layers.map(async (url) => {
      const image = new Image();
      image.src = url;
      await image.decode();
      return image;
    }));
    if (turn !== asked) return;
    picture = chosen; layers = loaded;
    canvas.style.aspectRatio = `${picture.width} / ${picture.height}`;
    showAll();
  }

  const actions = { in: () => zoom(2), out: () => zoom(1 / 2), all: showAll, next: nextRegion };
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.do) return actions[button.dataset.do]();
    if (button.dataset.view) return choose(button.dataset.view);
    show(+button.dataset.picture);
    const { top, bottom } = canvas.getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) canvas.scrollIntoView({ block: "nearest" });
  });
  for (const side of sides) side.addEventListener("change", settle);
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || sides.includes(event.target)) return;
    const step = 60 / scale, keys = {
      "+": actions.in, "=": actions.in, "-": actions.out, "0": showAll, n: nextRegion,
    };
    sides[0].querySelectorAll("option").forEach((_, view) => { keys[view + 1] = () => choose(view); });
    if (event.target === canvas) Object.assign(keys, {
      ArrowLeft: () => { x -= step; }, ArrowRight: () => { x += step; },
      ArrowUp: () => { y -= step; }, ArrowDown: () => { y += step; },
    });
    if (event.target === divider) Object.assign(keys, {
      ArrowLeft: () => divide(split - .02), ArrowRight: () => divide(split + .02),
      Home: () => divide(0), End: () => divide(1),
    });
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key](); settle();
  });
  divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
  divider.addEventListener("pointermove", (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    divide((event.clientX - canvas.getBoundingClientRect().left) / size()[0]);
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(4, event.offsetX, event.offsetY));
  const fingers = new Map(); // or the mouse
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId), now = [event.offsetX, event.offsetY];
    if (!before) return;
    fingers.set(event.pointerId, now);
    if (fingers.size === 1) { x -= (now[0] - before[0]) / scale; y -= (now[1] - before[1]) / scale; settle(); }
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
      zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  new ResizeObserver(settle).observe(canvas);
  show(0);
}
document.querySelectorAll(".viewer").forEach(startViewer);
