"use strict";

const byId = (id) => document.getElementById(id);
const TEACHER = "teacher";
const MAX_UPLOAD_BYTES = 20 * 1024 * 1024;
const MOST_QUERIES = 16; // rows of the page
let databases = [];
let queries = []; // each a blob, its name, and of a picture of the database its row and class
let leftOut = 0; // pictures that came with them
let latest = 0; // only the latest search may show its results
let taken = 0; // only the picture taken last is searched with

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function classed(name, made) {
  made.className = name;
  return made;
}

function say(text, isFault = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("fault", isFault);
}

async function asked(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer: is `l2s ui` still running?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Error(told.error || `The server answered ${response.status}.`);
}

const chosen = () => databases.find((entry) => entry.name === byId("database").value);
const pictureAddress = (row, full = false) =>
  `/picture?${new URLSearchParams({ database: chosen().name, row, full })}`;

function fill(select, names) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) select.value = before;
}

function chooseDatabase() {
  fill(byId("network"), chosen().networks);
  byId("examples").replaceChildren(...chosen().examples.map(pictureButton));
  byId("offered").hidden = !chosen().examples.length;
  resetKeys(byId("examples"));
}

function changeDatabase() {
  latest += 1;
  taken += 1;
  say("");
  chooseDatabase();
  queries = queries.filter(({ row }) => row === null); // a row is one of the other database
  showArticles();
  search();
}

// Pictures of the database: each a button that searches with it.

function pictureButton(one) {
  const image = element("img");
  image.src = pictureAddress(one.row);
  image.alt = `search with ${one.name}`;
  image.loading = "lazy";
  const button = element("button", "", image);
  button.type = "button";
  button.addEventListener("click", () => takeRow(one));
  return button;
}

async function takeRow({ row, name, class_name }) {
  const turn = ++taken;
  try {
    const blob = await (await asked(pictureAddress(row, true))).blob();
    if (turn === taken) take([{ blob, name, row, className: class_name }]);
  } catch (fault) {
    if (turn === taken) say(fault.message, true);
  }
}

function takeFiles(files) {
  if (!files.length) return;
  taken += 1;
  take([...files].map((blob) => ({ blob, name: blob.name || "the query", row: null, className: "" })));
}

function take(pictures) {
  queries = pictures.slice(0, MOST_QUERIES);
  leftOut = pictures.length - queries.length;
  search();
}

// Arrow keys move among the pictures of a list, of which Tab reaches one.

function resetKeys(list) {
  const buttons = [...list.querySelectorAll("button")];
  buttons.forEach((button, place) => { button.tabIndex = place ? -1 : 0; });
}

function moveFocus(event) {
  const list = event.target.closest?.(".keys");
  if (!list || event.target.tagName !== "BUTTON") return;
  const buttons = [...list.querySelectorAll("button")];
  const place = buttons.indexOf(event.target);
  const top = buttons[0].getBoundingClientRect().top;
  const columns = buttons.filter((one) => one.getBoundingClientRect().top === top).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const ends = { Home: 0, End: buttons.length - 1 }[event.key];
  const next = buttons[ends ?? place + step];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// A search: for each query the chosen network's answer, then the teacher's.

async function search() {
  if (!queries.length || !chosen()) return;
  const turn = ++latest;
  if (!byId("count").reportValidity()) {
    say(`Results: ${byId("count").validationMessage}`, true);
    return;
  }
  const database = chosen();
  const network = byId("network").value;
  const networks = [...new Set([network, ...database.networks.filter((one) => one === TEACHER)])];
  say("Searching …");
  const rows = queries.map((query) => queryRow(query));
  showArticles(...rows.map(({ article }) => article));
  const faults = [];
  for (const [place, query] of queries.entries()) {
    const answers = [];
    try {
      for (const one of networks) {
        answers.push(await found(one, query));
        if (turn !== latest) return;
        showAnswers(rows[place], query, answers);
      }
    } catch (fault) {
      if (turn !== latest) return;
      faults.push(`${query.name}: ${fault.message.replace(/^the picture: /, "")}`);
      rows[place].article.append(classed("fault", element("p", fault.message)));
    }
  }
  tellEnd(faults);
}

function showArticles(...articles) {
  const before = byId("answers");
  const heldFocus = before.contains(document.activeElement);
  for (const image of before.querySelectorAll("img[src^='blob:']")) URL.revokeObjectURL(image.src);
  before.replaceChildren(...articles);
  if (heldFocus) before.querySelector("h2")?.focus();
}

function tellEnd(faults) {
  const all = queries.length + leftOut;
  const done = queries.length - faults.length;
  const searched = done < all ? `${done} of ${all} queries` : done === 1 ? "1 query" : `${done} queries`;
  const limit = leftOut ? `The page takes ${MOST_QUERIES} at once.` : "";
  say([`${searched} searched.`, limit, faults.join("; ")].filter(Boolean).join(" "), faults.length > 0);
}

async function found(network, { blob }) {
  if (blob.size > MAX_UPLOAD_BYTES) throw new Error("has more than 20 MiB");
  const place = { database: chosen().name, network };
  const sent = { method: "POST", body: blob };
  const asking = new URLSearchParams({ ...place, k: byId("count").value || "10" });
  const told = await (await asked(`/search?${asking}`, sent)).json();
  const view = await (await asked(`/view?${new URLSearchParams(place)}`, sent)).blob();
  return { ...told, ...told.answers[0], view };
}

function listen() {
  const drop = byId("drop");
  byId("query").addEventListener("submit", (event) => event.preventDefault());
  byId("file").addEventListener("change", (event) => { takeFiles(event.target.files); event.target.value = ""; });
  byId("database").addEventListener("change", changeDatabase);
  byId("network").addEventListener("change", search);
  byId("count").addEventListener("change", search);
  document.addEventListener("keydown", moveFocus);
  document.addEventListener("paste", (event) => takeFiles(event.clipboardData.files));
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  }
  document.addEventListener("drop", (event) => takeFiles(event.dataTransfer.files));
}

async function start() {
  listen();
  try {
    const listed = await (await asked("/databases")).json();
    databases = listed.filter((entry) => !entry.fault);
    const faults = listed.filter((entry) => entry.fault);
    if (faults.length) say(faults.map(({ name, fault }) => `${name}: ${fault}`).join("; "), true);
    if (!databases.length) return;
    fill(byId("database"), databases.map((entry) => entry.name));
    chooseDatabase();
  } catch (fault) {
    say(fault.message, true);
  }
}

start();
