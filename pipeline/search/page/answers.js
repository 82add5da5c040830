"use strict";

// What the page shows of a query: what each network saw, what that cost, and what it found.

const STEPS = ["view", "embed", "search"]; // decoding takes both networks the same time

function queryRow(query) {
  const seen = classed("seen", element("div", "", figure(query.blob, query.name, "the query")));
  const costs = classed("costs", element("div"));
  const lists = classed("lists", element("div"));
  const head = classed("head", element("div", "", seen, costs));
  const title = element("h2", query.name);
  title.tabIndex = -1; // takes the focus of a hit that is searched with
  return { article: element("article", "", title, head, lists), seen, costs, lists };
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
  const focused = [...lists.querySelectorAll("button")].indexOf(document.activeElement);
  lists.replaceChildren(...answers.map((one) => section(one, query, shared)));
  lists.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
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
