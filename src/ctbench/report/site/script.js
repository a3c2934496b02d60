"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  /* elements that need this script */
  for (const element of all(".scripted")) element.hidden = false;

  /* light and dark */
  const themes = ["auto", "light", "dark"];
  const memory = {
    get: () => { try { return localStorage.getItem("ctbench-theme"); } catch { return null; } },
    set: (theme) => { try { localStorage.setItem("ctbench-theme", theme); } catch { /* a page from a file may have no storage */ } },
  };
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
  };
  let theme = themes.includes(memory.get()) ? memory.get() : "auto";
  setTheme(theme);
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    memory.set(theme);
    setTheme(theme);
  });

  /* text about what the pointer or the focus is on */
  const tip = byId("tip");
  const show = (text, x, y) => {
    tip.textContent = text;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(6, x - box.width / 2), innerWidth - box.width - 6);
    const above = y - box.height - 12;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : y + 16}px`;
  };
  const hide = () => { tip.hidden = true; for (const ring of all(".ring")) ring.remove(); };
  for (const element of all("[data-tip]")) {
    const say = () => { const box = element.getBoundingClientRect(); show(element.dataset.tip, box.left + box.width / 2, box.top); };
    element.addEventListener("pointerenter", say);
    element.addEventListener("focus", say);
    element.addEventListener("pointerleave", hide);
    element.addEventListener("blur", hide);
  }

  /* charts */
  const mark = (svg, [x, y, text]) => {
    hide();
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [name, value] of Object.entries({ class: "ring", cx: x, cy: y, r: 7 })) ring.setAttribute(name, value);
    svg.append(ring);
    const place = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    show(text, place.x, place.y);
  };
  for (const svg of all(".chart > svg")) {
    const series = all("[data-points]", svg).map((group) => ({ group, points: JSON.parse(group.dataset.points) }));
    for (const title of all("title", svg)) title.remove(); /* the browser's own text would cover ours */
    svg.addEventListener("pointermove", (event) => {
      const matrix = svg.getScreenCTM();
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
      let best = null, least = 26 / matrix.a, here = [];
      for (const { group, points } of series) {
        if (getComputedStyle(group).display === "none") continue;
        for (const point of points) {
          const bar = point[4]; /* a bar counts over its whole height */
          const distance = bar ? Math.max(0, Math.abs(point[0] - at.x) - bar) : Math.hypot(point[0] - at.x, point[1] - at.y);
          if (best && point[0] === best[0] && point[1] === best[1]) here.push(point[2]);
          else if (distance < least) [best, least, here] = [point, distance, [point[2]]];
        }
      }
      if (best) mark(svg, [best[0], best[1], here.join("\n")]); else hide(); /* marks may share a place */
    });
    svg.addEventListener("pointerleave", hide);
    for (const { group, points } of series) {
      let place = 0;
      const read = () => { mark(svg, points[place]); group.setAttribute("aria-label", points[place][2]); };
      group.addEventListener("focus", read);
      group.addEventListener("blur", hide);
      group.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
        if (event.key in steps) place = (place + steps[event.key] + points.length) % points.length;
        else if (event.key === "Home") place = 0;
        else if (event.key === "End") place = points.length - 1;
        else if (event.key === "Enter" && points[place][3]) { location.href = points[place][3]; return; }
        else return;
        event.preventDefault();
        read();
      });
    }
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", hide, { passive: true });

  /* tables: each heading sorts */
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim();
  };
  const compare = (a, b, sign) => {
    const empty = [a, b].map((value) => value === "-" || value === "");
    if (empty[0] || empty[1]) return empty[0] - empty[1]; /* what is not there comes last */
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const sort = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    rows.sort((a, b) => compare(a[0], b[0], sign));
    body.append(...rows.map(([, row]) => row));
    for (const heading of table.tHead.rows[0].cells) heading.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
  };
  for (const table of all("table")) {
    for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const first = heading.classList.contains("number") ? "descending" : "ascending";
        const other = first === "descending" ? "ascending" : "descending";
        sort(table, column, heading.getAttribute("aria-sort") === first ? other : first);
      });
    }
    if (table.dataset.order) table.tHead.rows[0].cells[Number(table.dataset.order)].setAttribute("aria-sort", "descending");
  }

  /* the rows of the leaderboard that are shown */
  const search = byId("search");
  if (search) {
    const rows = all(".setting tbody tr");
    const chosen = all("select[data-fact]");
    for (const select of chosen) {
      const values = new Set(rows.map((row) => row.dataset[select.dataset.fact]).filter((value) => value));
      for (const value of [...values].sort()) select.add(new Option(value, value));
    }
    const fits = (row) => {
      const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
      const text = `${row.textContent} ${row.closest(".setting").querySelector("h2").textContent}`.toLowerCase();
      return words.every((word) => text.includes(word))
        && chosen.every((select) => !select.value || row.dataset[select.dataset.fact] === select.value)
        && !(byId("remarks").checked && row.querySelector(".remark"));
    };
    const filter = () => {
      const published = byId("published"); /* which is there if there are any */
      document.body.classList.toggle("without-published", published !== null && !published.checked);
      for (const section of all(".setting")) section.hidden = byId("setting").value !== "" && section.dataset.setting !== byId("setting").value;
      let shown = 0, total = 0;
      for (const row of rows) {
        row.hidden = !fits(row);
        if (row.closest(".published")) continue;
        total += 1;
        shown += !row.hidden && !row.closest(".setting").hidden;
      }
      byId("shown").textContent = `${shown} of ${total} rows`;
    };
    search.form.addEventListener("input", filter);
    search.form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  /* copy a command */
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const command = button.previousElementSibling.textContent;
      try { await navigator.clipboard.writeText(command); button.textContent = "Copied"; } catch { getSelection().selectAllChildren(button.previousElementSibling); button.textContent = "Selected"; }
    });
  }
})();
