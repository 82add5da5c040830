"use strict";

const byId = (id) => document.getElementById(id);
const TEACHER = "teacher";
const MAX_UPLOAD_BYTES = 20 * 1024 * 1024;
let databases = [];
let picture = null; // the query, a Blob
let latest = 0; // only the latest search may show its results

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

const pictureAddress = (row, full = false) =>
  `/picture?${new URLSearchParams({ database: byId("database").value, row, full })}`;

function fill(select, names) {
  const before = select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(before)) select.value = before;
}

const chosen = () => databases.find((entry) => entry.name === byId("database").value);

function chooseDatabase() {
  fill(byId("network"), chosen().networks);
  byId("examples").replaceChildren(
    ...chosen().examples.map((row) => {
      const image = element("img");
      image.src = pictureAddress(row);
      image.alt = `picture ${row + 1} of ${chosen().images}`;
      const button = element("button", "", image);
      button.type = "button";
      button.addEventListener("click", () => takeExample(row));
      return button;
    }),
  );
}

async function takeExample(row) {
  try {
    const response = await asked(pictureAddress(row, true));
    take(await response.blob());
  } catch (fault) {
    say(fault.message, true);
  }
}

function take(blob) {
  if (!blob) return;
  if (blob.size > MAX_UPLOAD_BYTES) {
    say("This picture has more than 20 MiB.", true);
    return;
  }
  picture = blob;
  const preview = byId("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.alt = blob.name ? `the query, ${blob.name}` : "the query";
  preview.hidden = false;
  byId("hint").hidden = true;
  search();
}

async function search() {
  if (!picture || !byId("count").checkValidity()) return;
  const turn = ++latest;
  say("Searching …");
  const teacher = chosen().networks.includes(TEACHER) ? TEACHER : byId("network").value;
  try {
    const answers = await Promise.all([...new Set([byId("network").value, teacher])].map(found));
    if (turn === latest) show(answers);
  } catch (fault) {
    if (turn !== latest) return;
    byId("answers").hidden = true;
    say(fault.message, true);
  }
}

async function found(network) {
  const asking = new URLSearchParams({
    database: byId("database").value,
    network,
    k: byId("count").value || "10",
  });
  const response = await asked(`/search?${asking}`, { method: "POST", body: picture });
  const told = await response.json();
  return { ...told, ...told.answers[0] };
}

function show([network, teacher]) {
  const alone = !teacher;
  const others = new Set(alone ? [] : teacher.hits.map((hit) => hit.name));
  const shared = new Set(network.hits.map((hit) => hit.name).filter((name) => others.has(name)));
  fillSection(byId("by-network"), "network-title", network, shared);
  if (!alone) fillSection(byId("by-teacher"), "teacher-title", teacher, shared);
  byId("by-teacher").hidden = alone;
  byId("answers").classList.toggle("alone", alone);
  byId("answers").hidden = false;
  say(
    alone
      ? `${network.hits.length} pictures found.`
      : `${shared.size} of ${network.hits.length} pictures are found by the teacher too (outlined).`,
  );
}

function fillSection(section, titleId, answer, shared) {
  const leads = answer.champion_version ? `, champion version ${answer.champion_version}` : "";
  const title = element("h2", `${answer.network}, at ${answer.query_px} px${leads}`);
  title.id = titleId;
  const steps = Object.entries(answer.times_ms);
  const total = steps.reduce((sum, [, time]) => sum + time, 0);
  const times = element("dl");
  for (const [step, time] of [...steps, ["total", total]]) {
    times.append(element("div", "", element("dt", step), element("dd", `${time.toFixed(1)} ms`)));
  }
  const list = element("ol");
  for (const hit of answer.hits) {
    const item = element("li");
    if (chosen().has_pictures) {
      const image = element("img");
      image.src = pictureAddress(hit.row);
      image.alt = hit.name;
      image.loading = "lazy";
      item.append(image);
    }
    item.append(element("b", `${hit.rank}. ${hit.similarity.toFixed(3)}`));
    if (hit.class_name && !hit.name.startsWith(`${hit.class_name}/`)) {
      item.append(element("span", hit.class_name));
    }
    item.append(element("span", hit.name));
    item.classList.toggle("shared", shared.has(hit.name));
    list.append(item);
  }
  section.replaceChildren(title, times, list);
}

function listen() {
  const drop = byId("drop");
  byId("query").addEventListener("submit", (event) => event.preventDefault());
  byId("file").addEventListener("change", (event) => take(event.target.files[0]));
  byId("database").addEventListener("change", () => { chooseDatabase(); search(); });
  byId("network").addEventListener("change", search);
  byId("count").addEventListener("change", search);
  document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.remove("over"); });
  }
  document.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
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
