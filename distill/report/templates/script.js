"use strict";
(() => {
  const tip = document.getElementById("tip");
  const make = (name, values = {}) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
    return node;
  };

  // Tooltips. Text is set as text, never as HTML: it comes from folders and configs.
  function show(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(4, x + 14), innerWidth - size.width - 4);
    const top = y + 18 + size.height > innerHeight ? y - size.height - 10 : y + 18;
    tip.style.left = `${left}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }
  // What is in focus keeps its tooltip when the mouse leaves something else, or the page scrolls.
  let focused = null;
  const hide = () => { if (focused) focused(); else tip.hidden = true; };
  addEventListener("scroll", hide, { passive: true });

  // Charts: the point nearest to the mouse; with the keyboard the points of the line in focus.
  for (const svg of document.querySelectorAll("[data-chart]")) {
    const chart = JSON.parse(svg.dataset.chart);
    const cursor = make("circle", { class: "cursor", r: 6, visibility: "hidden" });
    svg.append(cursor);
    const point = (series, index) => {
      const [cx, cy, x, y, spread, note] = chart.series[series].points[index];
      cursor.setAttribute("cx", cx);
      cursor.setAttribute("cy", cy);
      cursor.setAttribute("visibility", "visible");
      const place = new DOMPoint(cx, cy).matrixTransform(svg.getScreenCTM());
      const around = spread === null ? "" : ` ± ${spread}`;
      show(`${chart.series[series].label}\n${chart.x}: ${x}\n${chart.y}: ${y}${around}${note ? `\n${note}` : ""}`, place.x, place.y);
    };
    const leave = () => { cursor.setAttribute("visibility", "hidden"); hide(); };
    svg.addEventListener("mousemove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null;
      chart.series.forEach((series, s) => series.points.forEach(([cx, cy], i) => {
        const distance = Math.hypot(cx - at.x, cy - at.y);
        if (best === null || distance < best.distance) best = { distance, s, i };
      }));
      if (best && best.distance < 40) point(best.s, best.i);
      else leave();
    });
    svg.addEventListener("mouseleave", leave);
    for (const line of svg.querySelectorAll(".series")) {
      const series = Number(line.dataset.series);
      const last = chart.series[series].points.length - 1;
      let index = last;
      const away = () => { focused = null; leave(); };
      line.addEventListener("focus", () => { index = last; focused = () => point(series, index); focused(); });
      line.addEventListener("blur", away);
      line.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (event.key === "Escape") away();
        if (!step) return;
        event.preventDefault();
        index = Math.min(last, Math.max(0, index + step));
        point(series, index);
      });
    }
  }

  // Tables: a heading sorts, first numbers from high to low and texts from A on; empty cells stay last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const body = table.tBodies[0];
      const read = (row) => {
        const cell = row.cells[column];
        return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
      };
      const rows = [...body.rows].map((row) => ({ row, value: read(row) }));
      const numeric = rows.some(({ value }) => typeof value === "number");
      const now = head.getAttribute("aria-sort");
      const down = now === "none" ? numeric : now === "ascending";
      rows.sort((a, b) => {
        // The teacher is no setting: its rows stay last.
        const teacher = a.row.matches(".of-teacher") - b.row.matches(".of-teacher");
        if (teacher) return teacher;
        const missing = (a.value === "") - (b.value === "");
        if (missing) return missing;
        const order = typeof a.value === "number" && typeof b.value === "number"
          ? a.value - b.value : String(a.value).localeCompare(String(b.value), "en", { numeric: true });
        return down ? -order : order;
      });
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows.map(({ row }) => row));
    }));
  }

  // On paper everything is open.
  const shut = [];
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) { shut.push(part); part.open = true; }
  });
  addEventListener("afterprint", () => { for (const part of shut.splice(0)) part.open = false; });

  // Theme: the system's until the button is pressed; a page from a file may not be allowed to remember it.
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
  try { const kept = localStorage.getItem("distill-theme"); if (kept) root.dataset.theme = kept; } catch { /* not allowed */ }
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("distill-theme", root.dataset.theme); } catch { /* not allowed */ }
    label();
  });
  system.addEventListener("change", label);
  label();

  // The map of the embeddings.
  const map = JSON.parse(document.getElementById("map-data").textContent);
  if (!map) return;
  const runs = document.getElementById("map-run");
  const chooser = document.getElementById("map-class");
  const legend = document.getElementById("map-legend");
  const panels = { teacher: document.getElementById("map-teacher"), student: document.getElementById("map-student") };
  map.students.forEach((student, i) => runs.add(new Option(student.label, i)));
  chooser.add(new Option("most confused", ""));
  map.classes.forEach((name, i) => chooser.add(new Option(name, i)));

  function colours() {
    const chosen = chooser.value === "" ? map.highlighted : [Number(chooser.value)];
    return new Map(chosen.map((label, i) => [label, i]));
  }
  function draw(svg, places, of) {
    svg.replaceChildren();
    const order = places.map((_, i) => i).sort((a, b) => of.has(map.label[a]) - of.has(map.label[b]));
    map.share.forEach((share, axis) => {
      const name = make("text", { class: "axis-name", ...(axis ? { transform: "translate(-1010 0) rotate(-90)" } : { y: 1040 }) });
      name.textContent = `principal component ${axis + 1} (${share}%)`;
      svg.append(name);
    });
    for (const i of order) {
      const [x, y] = places[i];
      const colour = of.get(map.label[i]);
      const size = colour === undefined ? 13 : 19;
      const shape = map.ood[i] ? make("circle", { cx: x, cy: -y, r: size })
        : make("rect", { x: x - size, y: -y - size, width: 2 * size, height: 2 * size });
      shape.setAttribute("class", colour === undefined ? "dot" : `dot c${colour}`);
      shape.dataset.label = map.label[i];
      svg.append(shape);
    }
  }
  function light(label) {
    for (const svg of Object.values(panels)) {
      svg.classList.toggle("dim", label !== null);
      for (const dot of svg.querySelectorAll(".dot")) dot.classList.toggle("lit", label !== null && Number(dot.dataset.label) === label);
    }
  }
  function update() {
    const of = colours();
    draw(panels.teacher, map.teacher, of);
    draw(panels.student, map.students[Number(runs.value)].places, of);
    legend.replaceChildren(...[...of].map(([label, colour]) => {
      const item = document.createElement("button");
      item.type = "button";
      const swatch = document.createElement("span");
      swatch.className = `swatch c${colour}`;
      item.append(swatch, map.classes[label]);
      for (const event of ["mouseenter", "focus"]) item.addEventListener(event, () => light(label));
      for (const event of ["mouseleave", "blur"]) item.addEventListener(event, () => light(null));
      return item;
    }));
  }
  for (const svg of Object.values(panels)) {
    svg.addEventListener("mouseover", (event) => {
      const label = event.target.dataset.label;
      if (label === undefined) return;
      light(Number(label));
      show(map.classes[Number(label)], event.clientX, event.clientY);
    });
    svg.addEventListener("mouseout", () => { light(null); hide(); });
  }
  runs.addEventListener("change", update);
  chooser.addEventListener("change", update);
  update();
})();
