"use strict";
(() => {
  document.documentElement.classList.add("scripted");
  const tip = document.getElementById("tip");
  const make = (name, values = {}) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) node.setAttribute(key, value);
    return node;
  };

  // Tooltips. Text is set as text, never as HTML: it comes from folders and configs.
  function show(text, x, y, picture = -1) {
    tip.textContent = text;
    if (picture >= 0) {
      const svg = make("svg", { class: "picture" });
      svg.append(make("use", { href: `#picture-${picture}` }));
      tip.append(svg);
    }
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

  // What is drawn: one choice for all charts of a part. What is under the mouse or in focus stands out in all.
  for (const part of document.querySelectorAll(".part")) {
    const of = (group) => part.querySelectorAll(`[data-group="${group}"]`);
    const boxes = [...part.querySelectorAll(".pick input[type=checkbox]")];
    const groupOf = (box) => box.closest("[data-group]").dataset.group;
    const count = new Set(boxes.map(groupOf)).size;
    function pick(wanted) {
      for (const box of boxes) {
        const group = groupOf(box);
        if (!wanted.has(group)) continue;
        box.checked = wanted.get(group);
        for (const node of of(group)) node.classList.toggle("off", node.matches(".series") && !box.checked);
      }
      const drawn = new Set(boxes.filter((box) => box.checked).map(groupOf)).size;
      for (const told of part.querySelectorAll(".drawn")) told.textContent = `${drawn} of ${count}`;
      // One stop of the tab key a chart: its first series that is drawn.
      for (const svg of part.querySelectorAll("[data-chart]")) {
        const seen = [...svg.querySelectorAll(".series[data-series]")];
        const first = seen.find((line) => !line.matches(".off"));
        for (const line of seen) line.setAttribute("tabindex", line === first ? 0 : -1);
      }
    }
    part.light = (group) => {
      part.classList.toggle("lighting", group !== null);
      for (const node of part.querySelectorAll(".lit")) node.classList.remove("lit");
      if (group !== null) for (const node of of(group)) node.classList.add("lit");
    };
    for (const box of boxes) {
      const label = box.closest("label");
      box.addEventListener("change", () => pick(new Map([[groupOf(box), box.checked]])));
      for (const event of ["mouseenter", "focusin"]) label.addEventListener(event, () => part.light(groupOf(box)));
      for (const event of ["mouseleave", "focusout"]) label.addEventListener(event, () => part.light(null));
    }
    for (const button of part.querySelectorAll("[data-pick]")) button.addEventListener("click", () => {
      const shown = { first: (box) => "first" in box.dataset, all: () => true, none: () => false }[button.dataset.pick];
      pick(new Map(boxes.map((box) => [groupOf(box), shown(box)])));
    });
    for (const find of part.querySelectorAll(".pick input[type=search]")) find.addEventListener("input", () => {
      for (const item of find.closest(".pick").querySelectorAll("li"))
        item.hidden = !item.textContent.toLowerCase().includes(find.value.trim().toLowerCase());
    });
    pick(new Map(boxes.map((box) => [groupOf(box), "first" in box.dataset])));
  }

  // Charts: the point nearest to the mouse; with the keyboard the points of a line, and the next line.
  for (const svg of document.querySelectorAll("[data-chart]")) {
    const chart = JSON.parse(svg.dataset.chart);
    const cursor = make("circle", { class: "cursor", r: 6, visibility: "hidden" });
    svg.append(cursor);
    const part = svg.closest(".part");
    const lines = [...svg.querySelectorAll(".series[data-series]")];
    const drawn = () => lines.filter((line) => !line.matches(".off"));
    const point = (series, index) => {
      const [cx, cy, x, y, spread, note] = chart.series[series].points[index];
      cursor.setAttribute("cx", cx);
      cursor.setAttribute("cy", cy);
      cursor.setAttribute("visibility", "visible");
      part.light(lines[series].dataset.group ?? null);
      const place = new DOMPoint(cx, cy).matrixTransform(svg.getScreenCTM());
      const around = spread === null ? "" : ` ± ${spread}`;
      show(`${chart.series[series].label}\n${chart.x}: ${x}\n${chart.y}: ${y}${around}${note ? `\n${note}` : ""}`, place.x, place.y);
    };
    const leave = () => { cursor.setAttribute("visibility", "hidden"); part.light(null); hide(); };
    svg.addEventListener("mousemove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null;
      for (const line of drawn()) chart.series[line.dataset.series].points.forEach(([cx, cy], i) => {
        const distance = Math.hypot(cx - at.x, cy - at.y);
        if (best === null || distance < best.distance) best = { distance, s: Number(line.dataset.series), i };
      });
      if (best && best.distance < 40) point(best.s, best.i);
      else leave();
    });
    svg.addEventListener("mouseleave", leave);
    for (const line of lines) {
      const series = Number(line.dataset.series);
      const last = chart.series[series].points.length - 1;
      let index = last;
      const away = () => { focused = null; leave(); };
      line.addEventListener("focus", () => { index = last; focused = () => point(series, index); focused(); });
      line.addEventListener("blur", away);
      line.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        const other = { ArrowUp: -1, ArrowDown: 1 }[event.key];
        if (event.key === "Escape") away();
        if (!step && !other) return;
        event.preventDefault();
        if (other) {
          const all = drawn();
          all[(all.indexOf(line) + other + all.length) % all.length].focus();
          return;
        }
        index = Math.min(last, Math.max(0, index + step));
        point(series, index);
      });
    }
  }

  // Confusion matrices: the cell under the mouse, or where the arrows have led.
  for (const svg of document.querySelectorAll("[data-matrix]")) {
    const { names, counts, images } = JSON.parse(svg.dataset.matrix);
    const side = 400 / names.length;
    const cursor = make("rect", { class: "cursor", width: side, height: side, visibility: "hidden" });
    svg.append(cursor);
    let row = 0, column = 0;
    function cell() {
      cursor.setAttribute("x", column * side);
      cursor.setAttribute("y", row * side);
      cursor.setAttribute("visibility", "visible");
      const place = new DOMPoint((column + 1) * side, (row + 1) * side).matrixTransform(svg.getScreenCTM());
      const n = counts[row][column];
      const told = row === column ? `${names[row]}, told right` : `${names[row]}\ntaken for ${names[column]}`;
      show(`${told}: ${n} of ${images[row]}`, place.x, place.y);
    }
    const away = () => { focused = null; cursor.setAttribute("visibility", "hidden"); hide(); };
    svg.addEventListener("mousemove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const found = [Math.floor(at.y / side), Math.floor(at.x / side)];
      if (found.some((n) => n < 0 || n >= names.length)) return away();
      [row, column] = found;
      cell();
    });
    svg.addEventListener("mouseleave", away);
    svg.addEventListener("focus", () => { focused = cell; cell(); });
    svg.addEventListener("blur", away);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      row = Math.min(names.length - 1, Math.max(0, row + step[0]));
      column = Math.min(names.length - 1, Math.max(0, column + step[1]));
      cell();
    });
  }

  // Copies: tables for a spreadsheet and for LaTeX, commands and configs as they are.
  async function copy(text, button) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a file may not be allowed to
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    const before = button.dataset.name;
    button.textContent = done ? "Copied" : "Not allowed";
    setTimeout(() => { button.textContent = before; }, 1500);
  }
  function tool(name, text) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tool";
    button.textContent = button.dataset.name = name;
    button.addEventListener("click", () => copy(text(), button));
    return button;
  }
  // Without what stands for eyes or ears alone; a mark stays.
  function words(cell) {
    const bare = cell.cloneNode(true);
    for (const node of bare.querySelectorAll(".unseen, svg")) node.remove();
    return bare.textContent.replace(/\s+/g, " ").trim();
  }
  const rowsOf = (table) => [...table.rows].map((row) => [...row.cells].map(words));
  const escaped = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "★": "$\\star$", "≈": "$\\approx$", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "→": "$\\rightarrow$", "−": "$-$" };
  const latex = (text) => text.replace(/[\\~^±★≈↑↓→−]|[&%$#_{}]/g, (sign) => escaped[sign] ?? `\\${sign}`);
  function tabular(table) {
    const [head, ...body] = rowsOf(table).map((row) => `  ${row.map(latex).join(" & ")} \\\\`);
    const columns = `l${"r".repeat(table.rows[0].cells.length - 1)}`;
    return [`% ${table.caption.firstChild.textContent.trim()}; \\usepackage{booktabs}`, `\\begin{tabular}{${columns}}`, "  \\toprule", head, "  \\midrule", ...body, "  \\bottomrule", "\\end{tabular}", ""].join("\n");
  }
  for (const table of document.querySelectorAll(".box table")) {
    const tools = document.createElement("span");
    tools.className = "tools";
    tools.append(tool("Copy", () => rowsOf(table).map((row) => row.join("\t")).join("\n")), tool("LaTeX", () => tabular(table)));
    table.caption.append(tools);
  }
  for (const text of document.querySelectorAll("pre")) {
    const heading = text.previousElementSibling;
    if (heading) heading.append(" ", tool("Copy", () => text.textContent));
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
  const pictured = document.getElementById("map-pictures");
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
    const pictureOf = (i) => (pictured && pictured.checked ? map.pictures[i] : -1);
    const above = (i) => 2 * (pictureOf(i) >= 0) + of.has(map.label[i]);
    const order = places.map((_, i) => i).sort((a, b) => above(a) - above(b));
    map.share.forEach((share, axis) => {
      const name = make("text", { class: "axis-name", ...(axis ? { transform: "translate(-1010 0) rotate(-90)" } : { y: 1040 }) });
      name.textContent = `principal component ${axis + 1} (${share}%)`;
      svg.append(name);
    });
    for (const i of order) {
      const [x, y] = places[i];
      const colour = of.get(map.label[i]);
      const size = colour === undefined ? 13 : 19;
      const picture = pictureOf(i);
      const half = 55;
      const shape = picture >= 0 ? make("use", { href: `#picture-${picture}`, x: x - half, y: -y - half, width: 2 * half, height: 2 * half })
        : map.ood[i] ? make("circle", { cx: x, cy: -y, r: size })
        : make("rect", { x: x - size, y: -y - size, width: 2 * size, height: 2 * size });
      shape.setAttribute("class", picture >= 0 ? "dot pictured" : colour === undefined ? "dot" : `dot c${colour}`);
      shape.dataset.label = map.label[i];
      shape.dataset.picture = map.pictures[i];
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
      show(map.classes[Number(label)], event.clientX, event.clientY, Number(event.target.dataset.picture));
    });
    svg.addEventListener("mouseout", () => { light(null); hide(); });
  }
  runs.addEventListener("change", update);
  chooser.addEventListener("change", update);
  pictured?.addEventListener("change", update);
  update();
})();
