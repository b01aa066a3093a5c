// Sorting, filters, the origin of numbers, and enlarged figures. What comes from runs is set as text, never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  // Maps, for an agent may have the name of something that every object has.
  const commands = new Map(data.commands);
  const domains = new Map(data.domains);
  const baselines = new Map(data.baselines);
  const byId = (id) => document.getElementById(id);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables ---------------------------------------------------------------------------------------------------------

  const compare = (a, b, kind) => (kind === "number" ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0);

  function sort(header) {
    const table = header.closest("table");
    const kind = header.dataset.kind;
    const first = kind === "number" ? "descending" : "ascending";
    const second = kind === "number" ? "ascending" : "descending";
    const order = { none: first, [first]: second, [second]: "none" }[header.getAttribute("aria-sort")];
    all("thead th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", order);
    const place = (row) => Number(row.dataset.place);
    const key = (row) => row.cells[header.cellIndex].dataset.key;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      if (order === "none" || key(a) === key(b)) return place(a) - place(b);
      // Cells without a value come last in either order.
      if (key(a) === "" || key(b) === "") return key(a) === "" ? 1 : -1;
      return (order === "ascending" ? 1 : -1) * compare(key(a), key(b), kind) || place(a) - place(b);
    });
    table.tBodies[0].append(...rows);
  }

  all("thead th button").forEach((button) => {
    button.addEventListener("click", () => sort(button.closest("th")));
  });

  // Filters: they hide numbers, and never change one ------------------------------------------------------------------

  const boxes = all(".filters input");

  function filter() {
    const hidden = { agent: new Set(), domain: new Set() };
    boxes.filter((box) => !box.checked).forEach((box) => hidden[box.name].add(box.value));
    const isShown = (source) =>
      !source.agents.some((agent) => hidden.agent.has(agent)) &&
      !(source.tasks.length && source.tasks.every((task) => hidden.domain.has(domains.get(task))));
    const shown = data.sources.map(isShown);
    const state = (cells) => {
      const sources = cells.flatMap((cell) => all(".origin", cell)).map((button) => shown[button.dataset.source]);
      return sources.length > 0 && !sources.some(Boolean);
    };
    all("section table").forEach((table) => {
      const rows = [...table.tBodies[0].rows];
      rows.forEach((row) => row.classList.toggle("off", state([...row.cells])));
      [...table.tHead.rows[0].cells].forEach((header, column) => {
        const cells = rows.map((row) => row.cells[column]);
        const off = state(cells);
        [header, ...cells].forEach((cell) => cell.classList.toggle("off", off));
      });
      table.closest("section").classList.toggle("off", state(rows));
    });
    all("svg [data-of]").forEach((part) => {
      const of = JSON.parse(part.dataset.of);
      part.classList.toggle("off", of.agents.some((agent) => hidden.agent.has(agent)) || hidden.domain.has(of.domain));
    });
  }

  boxes.forEach((box) => box.addEventListener("change", filter));
  all(".filters button").forEach((button) => {
    button.addEventListener("click", () => {
      boxes.forEach((box) => (box.checked = true));
      filter();
    });
  });

  // The origin of a number -------------------------------------------------------------------------------------------

  function element(name, text, ...children) {
    const made = document.createElement(name);
    if (text !== null) made.textContent = text;
    made.append(...children);
    return made;
  }

  const row = (name, texts) => element("tr", null, ...texts.map((text) => element(name, text)));
  const number = (value) => (typeof value === "number" ? Number(value.toPrecision(6)) : value ?? "—");
  const distinct = (texts) => [...new Set(texts)];

  function scoresTable(scores, source) {
    const isFinal = source.frame === null;
    const some = (test) => scores.some(test);
    const columns = [
      ["agent", (one) => one.agent, source.agents.length > 1],
      ["task", (one) => one.task, true],
      ["goal set", (one) => one.goalSet, some((one) => one.goalSet !== null)],
      ["seed", (one) => one.seed ?? `mean of ${one.seeds || "?"}`, true],
      ...data.measures.map((name, place) => [name, (one) => number(one.values[place]), isFinal]),
      [`${data.measures[0]} at ${source.frame} frames`, (one) => number(new Map(one.curve).get(source.frame)), !isFinal],
      ["run id", (one) => one.run?.id ?? "—", some((one) => one.run)],
      ["run directory", (one) => one.run?.path ?? "—", some((one) => one.run)],
    ].filter(([, , isShown]) => isShown);
    const table = element(
      "table",
      null,
      element("thead", null, row("th", columns.map(([name]) => name))),
      element("tbody", null, ...scores.map((one) => row("td", columns.map(([, text]) => text(one))))),
    );
    const scroll = element("div", null, table);
    scroll.className = some((one) => one.run) ? "scroll paths" : "scroll";
    scroll.tabIndex = 0;
    return scroll;
  }

  function describe(source) {
    const scores = data.scores.filter(
      (one) =>
        source.agents.includes(one.agent) &&
        source.tasks.includes(one.task) &&
        (source.goalSet === null || one.goalSet === source.goalSet) &&
        (one.snapshot === null || one.snapshot === (source.snapshot ?? data.snapshot)),
    );
    const runs = scores.filter((one) => one.run).map((one) => ({ agent: one.agent, ...one.run }));
    const list = element("dl", null);
    const add = (name, texts) => {
      if (texts.length) list.append(element("dt", name), element("dd", null, element("pre", texts.join("\n"))));
    };
    add("Baseline", source.agents.flatMap((agent) => (baselines.has(agent) ? `${agent}: ${baselines.get(agent)}` : [])));
    add("Configuration", distinct(runs.map((run) => `${run.agent}: ${run.config}`)));
    add("Command of the runs", source.agents.flatMap((agent) => commands.get(agent) ?? []));
    add("Command of this report", [data.command]);
    for (const [key, name] of [["versions", "Versions"], ["git", "Git state"], ["hardware", "Hardware"]]) {
      add(name, distinct(runs.map((run) => data.circumstances[run.circumstances][key])));
    }
    add("Ended", distinct(runs.map((run) => run.ended)).sort());
    const kind = scores.some((one) => one.seed === null) ? "published mean" : "run";
    const count = `${scores.length} ${kind}${scores.length === 1 ? "" : "s"} of ${source.agents.join(", ")}`;
    return [element("p", `${count} on ${source.tasks.join(", ")}`), scoresTable(scores, source), list];
  }

  function showOrigin(button) {
    const table = button.closest("table");
    const cell = button.closest("td, th");
    const line = cell.parentElement;
    const words = [...line.cells].filter((one) => !one.querySelector(".origin") && one.dataset.kind === "word");
    const header = table.tHead.rows[0].cells[cell.cellIndex].textContent.trim();
    byId("origin-title").textContent = [...words.map((one) => one.textContent.trim()), header].join(" · ");
    byId("origin-value").textContent = button.textContent;
    byId("origin-table").textContent = table.closest("section").querySelector("h2").textContent;
    byId("origin-content").replaceChildren(...describe(data.sources[button.dataset.source]));
    byId("origin").showModal();
    byId("origin").scrollTop = 0;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".origin");
    if (button) showOrigin(button);
    if (event.target.closest(".close")) event.target.closest("dialog").close();
    // Outside its content a dialog is only its backdrop.
    if (event.target.id === "origin") event.target.close();
  });

  // Enlarged figures -------------------------------------------------------------------------------------------------

  const zoom = byId("zoom");
  let figure = null; // { svg, home, whole, box }, boxes as [x, y, width, height]
  const pointers = new Map();

  function show(box) {
    figure.box = box;
    figure.svg.setAttribute("viewBox", box.join(" "));
  }

  function position(x, y) {
    return new DOMPoint(x, y).matrixTransform(figure.svg.getScreenCTM().inverse());
  }

  function scale(factor, x, y) {
    const [left, top, width, height] = figure.box;
    const limited = Math.min(1, Math.max(0.02, (width * factor) / figure.whole[2])) * (figure.whole[2] / width);
    const at = x === undefined ? { x: left + width / 2, y: top + height / 2 } : position(x, y);
    show([at.x - (at.x - left) * limited, at.y - (at.y - top) * limited, width * limited, height * limited]);
  }

  function move(dx, dy) {
    const [left, top, width, height] = figure.box;
    show([left + dx, top + dy, width, height]);
  }

  function enlarge(picture) {
    const svg = picture.querySelector("svg");
    const whole = svg.getAttribute("viewBox").split(" ").map(Number);
    figure = { svg, home: picture, whole, box: whole };
    picture.style.minHeight = `${picture.offsetHeight}px`;
    byId("zoom-title").textContent = picture.closest("section").querySelector("h2").textContent;
    zoom.querySelector(".stage").append(svg);
    zoom.showModal();
  }

  all(".picture").forEach((picture) => picture.addEventListener("click", () => enlarge(picture)));
  zoom.addEventListener("close", () => {
    show(figure.whole);
    figure.home.append(figure.svg);
    figure.home.style.minHeight = "";
    pointers.clear();
    figure = null;
  });
  const steps = { in: () => scale(0.7), out: () => scale(1 / 0.7), whole: () => show(figure.whole) };
  all("[data-step]", zoom).forEach((button) => button.addEventListener("click", steps[button.dataset.step]));

  const stage = zoom.querySelector(".stage");
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    scale(Math.exp(event.deltaY * 0.002), event.clientX, event.clientY);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => scale(0.5, event.clientX, event.clientY));
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
  }
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (other) {
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      scale(distance(before) / distance(event), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    } else {
      const [from, to] = [position(before.clientX, before.clientY), position(event.clientX, event.clientY)];
      move(from.x - to.x, from.y - to.y);
    }
    pointers.set(event.pointerId, event);
  });
  zoom.addEventListener("keydown", (event) => {
    const step = figure.box[2] / 10;
    const action = {
      "+": steps.in, "=": steps.in, "-": steps.out, 0: steps.whole,
      ArrowLeft: () => move(-step, 0), ArrowRight: () => move(step, 0),
      ArrowUp: () => move(0, -step), ArrowDown: () => move(0, step),
    }[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });

  // Some browsers remember over a reload which boxes were ticked.
  filter();
})();
