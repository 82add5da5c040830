"use strict";

const byId = (id) => document.getElementById(id);
const TEACHER = "teacher";
const MAX_UPLOAD_BYTES = 20 * 1024 * 1024;
const MOST_QUERIES = 16; // rows of the page
const STEPS = ["view", "embed", "search"]; // decoding takes both networks the same time
let databases = [];
let queries = []; // each a blob, its name, and of a picture of the database its row and class
let latest = 0; // only the latest search may show its results

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
  chooseDatabase();
  queries = queries.filter(({ row }) => row === null); // a row is one of the other database
  byId("answers").replaceChildren();
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
  try {
    const blob = await (await asked(pictureAddress(row, true))).blob();
    take([{ blob, name, row, className: class_name }]);
  } catch (fault) {
    say(fault.message, true);
  }
}

function takeFiles(files) {
  const pictures = [...files].slice(0, MOST_QUERIES);
  if (!pictures.length) return;
  take(pictures.map((blob) => ({ blob, name: blob.name || "the query", row: null, className: "" })));
}

function take(pictures) {
  const large = pictures.find(({ blob }) => blob.size > MAX_UPLOAD_BYTES);
  if (large) {
    say(`${large.name} has more than 20 MiB.`, true);
    return;
  }
  queries = pictures;
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
  const before = byId("answers");
  for (const image of before.querySelectorAll("img[src^='blob:']")) URL.revokeObjectURL(image.src);
  before.replaceChildren(...rows.map(({ article }) => article));
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
      faults.push(fault.message);
      rows[place].article.append(classed("fault", element("p", fault.message)));
    }
  }
  const done = queries.length - faults.length;
  say(faults[0] || `${done} ${done === 1 ? "query" : "queries"} searched.`, faults.length > 0);
}

async function found(network, { blob }) {
  const place = { database: chosen().name, network };
  const sent = { method: "POST", body: blob };
  const asking = new URLSearchParams({ ...place, k: byId("count").value || "10" });
  const told = await (await asked(`/search?${asking}`, sent)).json();
  const view = await (await asked(`/view?${new URLSearchParams(place)}`, sent)).blob();
  return { ...told, ...told.answers[0], view };
}

function queryRow(query) {
  const seen = classed("seen", element("div", "", figure(query.blob, query.name, "the query")));
  const costs = classed("costs", element("div"));
  const lists = classed("lists", element("div"));
  const head = classed("head", element("div", "", seen, costs));
  return { article: element("article", "", element("h2", query.name), head, lists), seen, costs, lists };
}

function figure(blob, name, caption) {
  const image = element("img");
  image.src = URL.createObjectURL(blob);
  image.alt = `${caption}: ${name}`;
  return element("figure", "", image, element("figcaption", caption));
}

function showAnswers({ seen, costs, lists }, query, answers) {
  const last = answers.at(-1);
  const caption = `what ${last.network} saw, ${last.query_px} px`;
  seen.append(classed("small", figure(last.view, query.name, caption)));
  const names = answers.map(({ hits }) => new Set(hits.map((hit) => hit.name)));
  const shared = (name) => names.length > 1 && names.every((some) => some.has(name));
  lists.replaceChildren(...answers.map((one) => section(one, query, shared)));
  costs.replaceChildren(...bars(answers));
}

// What a query costs: a bar for each network, the longest as wide as there is room.

function bars(answers) {
  const total = ({ times_ms }) => STEPS.reduce((sum, step) => sum + times_ms[step], 0);
  const measures = [
    ["time, without decoding", total, (value) => `${value.toFixed(1)} ms`],
    ["arithmetic", ({ gmacs }) => gmacs, (value) => `${(1000 * value).toPrecision(3)} million MACs`],
    ["its view as PNG", ({ view }) => view.size, (value) => `${(value / 1000).toPrecision(3)} kB`],
  ];
  return measures
    .filter(([, measure]) => answers.every((one) => measure(one) !== null))
    .map(([name, measure, text]) => {
      const most = Math.max(...answers.map(measure));
      return element("dl", "", element("dt", name), ...answers.map((one) => {
        const bar = classed(one.network === TEACHER ? "bar of-teacher" : "bar", element("span"));
        bar.style.width = `${(100 * measure(one)) / most}%`;
        const said = element("span", `${one.network} ${text(measure(one))}`);
        return element("dd", "", said, bar);
      }));
    });
}

function section(answer, query, shared) {
  const leads = answer.champion_version ? `, champion version ${answer.champion_version}` : "";
  const title = element("h3", `${answer.network}, at ${answer.query_px} px${leads}`);
  const others = answer.hits.filter((hit) => hit.row !== query.row || query.row === null);
  const notes = [];
  const { threshold } = answer;
  const isWeak = (hit) => threshold !== null && hit.similarity < threshold;
  if (threshold !== null && others.every(isWeak)) {
    const best = others.length ? `: the best has ${others[0].similarity.toFixed(3)}` : "";
    notes.push(classed("nothing", element("p", `Nothing similar${best}. 1 % of the pairs that do not belong together reach ${threshold.toFixed(3)} here.`)));
  }
  if (query.className) {
    const right = others.filter((hit) => hit.class_name === query.className).length;
    notes.push(element("p", `${right} of ${others.length} of its class, ${query.className}.`));
  }
  const steps = Object.entries(answer.times_ms).map(([step, ms]) => `${step} ${ms.toFixed(1)}`).join(" + ");
  notes.push(classed("steps", element("p", `${steps} ms`)));
  const list = classed("keys", element("ol", "", ...answer.hits.map((hit) =>
    hitItem(hit, query, shared(hit.name), isWeak(hit)))));
  resetKeys(list);
  const made = element("section", "", title, ...notes, list);
  made.setAttribute("aria-label", `${answer.network}, for ${query.name}`);
  return made;
}

function hitItem(hit, query, isShared, isWeak) {
  const item = element("li");
  if (chosen().has_pictures) item.append(pictureButton(hit));
  item.append(element("b", `${hit.rank}. ${hit.similarity.toFixed(3)}`));
  if (query.row !== null && hit.row === query.row) {
    item.append(classed("mark", element("span", "= the query itself")));
  } else if (query.className) {
    const isRight = hit.class_name === query.className;
    const mark = element("span", isRight ? "✓ right" : "✗ wrong");
    item.append(classed(isRight ? "mark right" : "mark wrong", mark));
  }
  if (isShared) item.append(classed("both", element("span", "both found it")));
  if (isWeak) item.append(element("span", "below the threshold"));
  if (hit.class_name && !hit.name.startsWith(`${hit.class_name}/`)) {
    item.append(element("span", hit.class_name));
  }
  item.append(element("span", hit.name));
  item.classList.toggle("shared", isShared);
  item.classList.toggle("weak", isWeak);
  return item;
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
