"use strict";

const COUNT = 12; // results
const EXAMPLES = 8;
const MAX_PIXELS = 16_000_000; // that a canvas of every browser can hold
const byId = (id) => document.getElementById(id);
let ready = null; // what `openAll` gives, as soon as the page loads
let latest = 0; // only the latest search may show its results
let last = Promise.resolve(); // the network runs once at a time

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function say(text, isFault = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("fault", isFault);
}

function tellParts(parts) {
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1)} MB`;
  const told = Object.entries(parts).map(([name, bytes]) => `${name} ${megabytes(bytes)}`);
  byId("parts").textContent = `Loaded: ${told.join(", ")}.`;
}

function tellAbout(index) {
  byId("licence").textContent = index.licences.database ?? index.licences.data;
  byId("about").textContent =
    `${index.network} sees ${index.size_px} × ${index.size_px} pixels of a picture and finds the most similar of ` +
    `${index.names.length.toLocaleString("en")}. Everything happens in this browser: no picture leaves it.`;
}

/** The pixels of a picture, upright and on white, or of what the camera shows. */
async function pixelsOf(source) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(source);
  } catch {
    throw new Error("This is no picture that the browser can read.");
  }
  const shrink = Math.min(1, Math.sqrt(MAX_PIXELS / (bitmap.width * bitmap.height)));
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.floor(side * shrink)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** The results for a picture, what the network saw of it, and how long each step took. */
async function answerTo(source) {
  const { index, numbers, steps, embed } = await ready;
  const times = {};
  let before = performance.now();
  const took = (step) => {
    const now = performance.now();
    [times[step], before] = [now - before, now];
  };
  const pixels = await pixelsOf(source);
  took("decode");
  const view = squareView(pixels, index.size_px);
  took("resize");
  const vector = await embed(view);
  took("network");
  const hits = nearest(vector, numbers, steps, COUNT);
  took("search");
  return { view, vector, hits, times };
}

function search(source, note = "") {
  const turn = ++latest;
  say("Searching …");
  last = last.then(async () => {
    if (turn !== latest) return;
    try {
      const answer = await answerTo(source);
      if (turn === latest) await show(answer, note);
    } catch (fault) {
      if (turn !== latest) return;
      byId("answer").hidden = true;
      say(fault.message, true);
    }
  });
}

async function show({ view, hits, times }, note) {
  const { index } = await ready;
  const isUnlike = hits[0].similarity < index.nothing_below;
  byId("answer").classList.toggle("unlike", isUnlike);
  drawView(view, index.size_px);
  const total = Object.values(times).reduce((sum, time) => sum + time, 0);
  byId("times").replaceChildren(
    ...Object.entries({ ...times, total }).map(([step, time]) =>
      element("div", "", element("dt", step), element("dd", `${time.toFixed(1)} ms`)),
    ),
  );
  byId("hits").replaceChildren(...hits.map((hit, i) => hitElement(index, hit, i + 1)));
  byId("answer").hidden = false;
  const found = isUnlike
    ? `Nothing similar: the best of ${index.names.length.toLocaleString("en")} has ${hits[0].similarity.toFixed(3)}; ` +
      `99 of 100 known pictures have one above ${index.nothing_below.toFixed(3)}.`
    : `${hits.length} of ${index.names.length.toLocaleString("en")} pictures, in ${total.toFixed(0)} ms.`;
  say(note + found);
}

function drawView(view, sizePx) {
  const canvas = byId("view");
  canvas.width = canvas.height = sizePx;
  canvas.setAttribute("aria-label", `The ${sizePx} × ${sizePx} pixels that the network saw`);
  const shown = new ImageData(sizePx, sizePx);
  for (let i = 0; i < sizePx * sizePx; i++) shown.data.set([...view.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  canvas.getContext("2d").putImageData(shown, 0, 0);
}

function hitElement(index, { row, similarity }, rank) {
  const name = index.names[row];
  const className = index.classes[index.class_of[row]];
  const place = element("div", name);
  place.className = "no-picture";
  pictureOf(row).then(
    (blob) => blob && place.replaceWith(imageOf(blob, name)),
    () => {}, // the name stays
  );
  const item = element("li", "", place, element("b", `${rank}. ${similarity.toFixed(3)}`));
  if (className) item.append(element("span", className));
  item.append(element("span", name.startsWith(`${className}/`) ? name.slice(className.length + 1) : name));
  return item;
}

function imageOf(blob, name) {
  const image = element("img");
  image.alt = name;
  image.src = URL.createObjectURL(blob);
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  return image;
}

function takeFiles(files) {
  const note = files.length > 1 ? `The first of ${files.length} pictures is searched. ` : "";
  if (files.length) take(files[0], note);
}

function take(blob, note) {
  const preview = byId("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.alt = blob.name ? `the query, ${blob.name}` : "the query";
  showPreview(true);
  search(blob, note);
}

function showPreview(isShown) {
  byId("preview").hidden = !isShown;
  byId("hint").hidden = isShown;
}

async function offerExamples() {
  const { pictures } = (await ready).index;
  const rows = pictures.flat().map(([row]) => row);
  const chosen = new Set(Array.from({ length: EXAMPLES }, (_, i) => rows[Math.floor((i * rows.length) / EXAMPLES)]));
  byId("examples").closest("fieldset").hidden = !rows.length;
  for (const row of rows.length ? chosen : []) {
    const blob = await pictureOf(row);
    const button = element("button", "", imageOf(blob, `picture ${row + 1}`));
    button.type = "button";
    button.addEventListener("click", () => take(blob));
    byId("examples").append(button);
  }
}

async function turnCamera(isOn) {
  const video = byId("video");
  if (isOn) {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      await video.play();
    } catch (fault) {
      say(`The camera cannot be used: ${fault.message}.`, true);
      return;
    }
  } else {
    for (const track of video.srcObject.getTracks()) track.stop();
    video.srcObject = null;
  }
  for (const id of ["video", "shoot", "camera-off"]) byId(id).hidden = !isOn;
  byId("camera-on").hidden = isOn;
  byId(isOn ? "shoot" : "camera-on").focus();
}

function listen() {
  const drop = byId("drop");
  byId("query").addEventListener("submit", (event) => event.preventDefault());
  byId("preview").addEventListener("error", () => showPreview(false));
  byId("file").addEventListener("change", (event) => { takeFiles(event.target.files); event.target.value = ""; });
  document.addEventListener("paste", (event) => takeFiles(event.clipboardData.files));
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  }
  document.addEventListener("drop", (event) => takeFiles(event.dataTransfer.files));
  if (navigator.mediaDevices?.getUserMedia) {
    byId("camera-on").addEventListener("click", () => turnCamera(true));
    byId("camera-off").addEventListener("click", () => turnCamera(false));
    byId("shoot").addEventListener("click", () => {
      showPreview(false);
      search(byId("video"));
    });
  } else {
    byId("camera").textContent = "A browser gives the camera to https:// and http://localhost only.";
  }
}

async function start() {
  if (location.protocol === "file:") {
    say("A browser loads nothing from file://: run `python -m http.server --bind 127.0.0.1` in this folder.", true);
    return;
  }
  ready = openAll();
  listen();
  try {
    await ready;
    if (!latest) say("Ready.");
    await offerExamples();
    await loadPictures();
  } catch (fault) {
    say(fault.message, true);
  }
}

start();
