"use strict";
// The page is whole without this: here are the switches, the sorting and the notes at the points.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const rows = all(".rows tbody tr");

  // Switches: what is off is hidden in the figure and in the table.
  const switches = all("[data-switch]");
  const isOn = (kind, value) => {
    const found = switches.find((one) => one.dataset.switch === kind && one.value === value);
    return !found || found.checked;
  };
  const show = () => {
    for (const panel of all(".panel")) {
      panel.classList.toggle("off", !isOn("set", panel.dataset.set));
      for (const part of all("[data-role]", panel)) {
        part.classList.toggle("off", !isOn("role", part.dataset.role));
      }
      all(".drawing", panel).forEach((drawing) => rove(drawing));
    }
    let shown = 0;
    for (const row of rows) {
      const on = isOn("set", row.dataset.set) && isOn("role", row.dataset.role);
      row.classList.toggle("off", !on);
      shown += on;
    }
    document.querySelector(".count").textContent =
      shown < rows.length ? `${shown} of ${rows.length} rows shown` : "";
  };
  for (const one of switches) one.addEventListener("change", show);

  // Points: one stop of the Tab key a panel, arrow keys inside it.
  // A panel is drawn twice, wide and narrow; the style shows one of them.
  const marksOf = (drawing) => all(".mark:not(.off)", drawing);
  const rove = (drawing, here) => {
    const marks = marksOf(drawing);
    const current = here || marks.find((mark) => mark.tabIndex === 0) || marks[0];
    for (const mark of all(".mark", drawing)) mark.tabIndex = mark === current ? 0 : -1;
  };
  const clear = (panel) => {
    for (const mark of all(".mark.here", panel)) mark.classList.remove("here");
    for (const row of rows) row.classList.remove("here");
    panel.querySelector(".tip").hidden = true;
  };
  const tell = (panel, mark) => {
    clear(panel);
    const row = document.getElementById(mark.dataset.row);
    mark.classList.add("here");
    row.classList.add("here");
    const tip = panel.querySelector(".tip");
    const list = document.createElement("dl");
    for (const cell of all("[data-tip]", row)) {
      const name = document.createElement("dt");
      const value = document.createElement("dd");
      name.textContent = cell.dataset.tip;
      value.append(...[...cell.childNodes].map((part) => part.cloneNode(true)));
      list.append(name, value);
    }
    tip.replaceChildren(list);
    tip.hidden = false;
    const frame = panel.getBoundingClientRect();
    const point = mark.querySelector(".halo").getBoundingClientRect();
    const left = point.right - frame.left + 8;
    const fits = left + tip.offsetWidth <= frame.width;
    const leftward = point.left - frame.left - tip.offsetWidth - 8;
    const across = Math.max(0, Math.min(leftward, frame.width - tip.offsetWidth));
    const beside = fits || leftward >= 0;
    tip.style.left = `${fits ? left : across}px`;
    const top = point.top - frame.top;
    tip.style.top = `${Math.max(0, beside ? top - 8 : top - tip.offsetHeight - 10)}px`;
  };
  const nearest = (drawing, event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      drawing.getScreenCTM().inverse(),
    );
    let best = null;
    let least = 30;
    for (const mark of marksOf(drawing)) {
      const far = Math.hypot(mark.dataset.x - at.x, mark.dataset.y - at.y);
      if (far < least) [best, least] = [mark, far];
    }
    return best;
  };
  const goTo = (mark) => {
    const row = document.getElementById(mark.dataset.row);
    row.scrollIntoView({ block: "center" });
    row.focus({ preventScroll: true });
  };
  for (const drawing of all(".drawing")) {
    const panel = drawing.closest(".panel");
    drawing.addEventListener("pointermove", (event) => {
      const mark = nearest(drawing, event);
      mark ? tell(panel, mark) : clear(panel);
    });
    drawing.addEventListener("pointerdown", (event) => {
      const mark = nearest(drawing, event);
      if (mark) tell(panel, mark);
    });
    drawing.addEventListener("pointerleave", () => clear(panel));
    for (const mark of all(".mark", drawing)) {
      mark.addEventListener("focus", () => {
        rove(drawing, mark);
        tell(panel, mark);
      });
      mark.addEventListener("blur", () => clear(panel));
    }
    drawing.addEventListener("keydown", (event) => {
      const marks = marksOf(drawing);
      const place = marks.indexOf(document.activeElement);
      if (place < 0) return;
      const to = {
        ArrowRight: place + 1, ArrowUp: place + 1, ArrowLeft: place - 1, ArrowDown: place - 1,
        Home: 0, End: marks.length - 1,
      }[event.key];
      if (to !== undefined) marks[Math.max(0, Math.min(to, marks.length - 1))].focus();
      else if (event.key === "Enter") goTo(marks[place]);
      else if (event.key === "Escape") clear(panel);
      else return;
      event.preventDefault();
    });
  }

  // Sorting: a heading's button sorts by its column, again the other way round.
  const body = document.querySelector(".rows tbody");
  const valueOf = (row, column) => {
    const cell = row.children[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const compare = (first, second) => {
    if (typeof first === "number" && typeof second === "number") return first - second;
    if (typeof first === "number") return 1; // cells without a value are the least
    if (typeof second === "number") return -1;
    return first.localeCompare(second);
  };
  all(".rows thead th").forEach((heading, column, headings) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const falling = heading.classList.contains("n") ? before !== "descending" : before === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const ordered = [...rows].sort(
        (first, second) => compare(valueOf(first, column), valueOf(second, column)) * (falling ? -1 : 1),
      );
      body.append(...ordered);
    });
  });
  show();
})();
