"use strict";
// A photograph under two masks: a slider between them, and zoom to single pixels.
function startViewer(viewer) {
  const pictures = JSON.parse(viewer.querySelector(".pictures").textContent);
  const canvas = viewer.querySelector("canvas"), pen = canvas.getContext("2d");
  const slider = viewer.querySelector(".slide input"), errors = viewer.querySelector("[data-do=errors]");
  const state = viewer.querySelector("output"), sides = viewer.querySelectorAll(".side");
  const layers = ["photograph", "left", "right", "left_errors", "right_errors"];
  const most = 32; // canvas pixels for a pixel of the photograph
  let picture = pictures[0], images = {}, place = -1, queued = false, asked = 0;
  let scale = 1, x = 0, y = 0; // CSS pixels a pixel; the photograph's pixel in the upper left corner
  const size = () => [canvas.clientWidth, canvas.clientHeight];
  const whole = () => Math.min(size()[0] / picture.width, size()[1] / picture.height);

  function settle() {
    scale = Math.min(Math.max(scale, whole()), Math.max(most, whole()));
    const fit = (at, all, shown) => all <= shown ? (all - shown) / 2 : Math.min(Math.max(at, 0), all - shown);
    x = fit(x, picture.width, size()[0] / scale);
    y = fit(y, picture.height, size()[1] / scale);
    canvas.style.touchAction = scale > whole() * 1.01 ? "none" : "pan-y";
    if (!queued) { queued = true; requestAnimationFrame(draw); }
  }
  function layer(name, from, to) { // between two places across, in CSS pixels
    if (!images[name] || to <= from) return;
    pen.save();
    pen.beginPath(); pen.rect(from, 0, to - from, size()[1]); pen.clip();
    pen.imageSmoothingEnabled = name === "photograph" && scale * devicePixelRatio < 2;
    pen.imageSmoothingQuality = "high";
    const thin = name.endsWith("errors") && scale * devicePixelRatio < 1; // else they vanish
    for (const [right, down] of thin ? [[0, 0], [.5, 0], [0, .5], [.5, .5]] : [[0, 0]])
      pen.drawImage(images[name], right - x * scale, down - y * scale, picture.width * scale, picture.height * scale);
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
    const [width, height] = size(), split = width * slider.value / 100;
    canvas.width = Math.round(width * devicePixelRatio); canvas.height = Math.round(height * devicePixelRatio);
    pen.scale(canvas.width / width, canvas.height / height);
    layer("photograph", 0, width);
    layer("left", 0, split); layer("right", split, width);
    if (errors.checked) { layer("left_errors", 0, split); layer("right_errors", split, width); }
    if (scale >= 12) grid([width, height]);
    pen.fillStyle = "#fff";
    if (split > 0 && split < width) pen.fillRect(split - 1, 0, 2, height);
    sides[0].hidden = slider.value < 8; sides[1].hidden = slider.value > 92;
    viewer.dataset.scale = scale; viewer.dataset.drawn = picture.name;
    const zoom = scale < 1 ? `${Math.round(scale * 100)} %` : `${scale.toFixed(scale < 10 ? 1 : 0)} ×`;
    const text = `${picture.name}: ${picture.caption}. ${picture.width} × ${picture.height} pixels, shown at ${zoom}.`;
    if (state.value !== text) state.value = text;
  }
  function zoom(factor, atX = size()[0] / 2, atY = size()[1] / 2) { // the pixel there stays there
    const pixel = [x + atX / scale, y + atY / scale];
    scale = Math.min(Math.max(scale * factor, whole()), Math.max(most, whole()));
    x = pixel[0] - atX / scale; y = pixel[1] - atY / scale;
    settle();
  }
  function nextError() {
    if (!picture.places.length) return;
    place = (place + 1) % picture.places.length;
    const [width, height] = size();
    scale = Math.max(8, whole());
    x = picture.places[place][0] - width / scale / 2; y = picture.places[place][1] - height / scale / 2;
    settle();
  }
  async function show(number) {
    const turn = ++asked; // the last one asked for is shown, whichever is decoded first
    const chosen = pictures[number], loaded = {};
    for (const button of viewer.querySelectorAll("[data-picture]"))
      button.setAttribute("aria-pressed", String(+button.dataset.picture === number));
    await Promise.all(layers.map(async (name) => {
      const image = new Image();
      image.src = chosen[name];
      await image.decode();
      loaded[name] = image;
    }));
    if (turn !== asked) return;
    picture = chosen; images = loaded; place = -1; scale = 0;
    canvas.style.aspectRatio = `${picture.width} / ${picture.height}`;
    settle();
  }

  const actions = {
    in: () => zoom(2), out: () => zoom(1 / 2), all: () => { scale = 0; settle(); }, next: nextError, errors: settle,
  };
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do], [data-picture]");
    if (!button) return;
    if (button.dataset.do) return actions[button.dataset.do]();
    show(+button.dataset.picture);
    const { top, bottom } = canvas.getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) canvas.scrollIntoView({ block: "nearest" });
  });
  slider.addEventListener("input", settle);
  canvas.addEventListener("keydown", (event) => {
    const step = 60 / scale, keys = {
      "+": actions.in, "=": actions.in, "-": actions.out, "0": actions.all, n: nextError,
      ArrowLeft: () => { x -= step; }, ArrowRight: () => { x += step; },
      ArrowUp: () => { y -= step; }, ArrowDown: () => { y += step; },
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key](); settle();
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
