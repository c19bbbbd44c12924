"use strict";
// The page is complete without this script, which adds: a note above each table that scrolls sideways, and the search, the order and the
// parts of the table of videos.

const mark = (box) => {
  const hint = box.previousElementSibling;
  if (hint && hint.classList.contains("hint")) hint.hidden = box.scrollWidth <= box.clientWidth + 1;
};
const boxes = [...document.querySelectorAll(".scroll")];
for (const box of boxes) {
  const hint = document.createElement("p");
  hint.className = "hint small muted";
  hint.hidden = true;
  hint.setAttribute("aria-hidden", "true");  // a screen reader shows the whole table
  hint.textContent = "↔ There is more to the right: scroll sideways.";
  box.before(hint);
}
const watcher = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
for (const box of boxes) watcher.observe(box);

const record = document.getElementById("video-record");
if (record) showVideos(JSON.parse(record.textContent));

function showVideos({ rows, classes, videos, raw, gallery, linked, at_once: atOnce }) {
  const isLinked = new Set(linked);
  const find = (id) => document.getElementById(id);
  const body = find("video-rows"), count = find("video-count"), pages = find("video-pages");
  const fields = ["search", "class", "network", "result", "predicted"].map((name) => find(`video-${name}`));
  const [search, ofClass, network, outcome, predicted] = fields;
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const texts = videos.map((video) => fold(video[0]));
  const isCorrect = (video, row) => video[2 + 2 * row] === video[1];
  let order = videos.map((_, place) => place), chosen = order, start = 0;

  const byName = classes.map((name, label) => [name, label]).sort((a, b) => a[0].localeCompare(b[0]));
  const fill = (select, labels) => {
    for (const [name, label] of byName) if (labels.has(label)) select.append(new Option(name, label));
  };
  fill(ofClass, new Set(videos.map((video) => video[1])));
  fill(predicted, new Set(videos.flatMap((video) => rows.map((_, row) => video[2 + 2 * row]))));
  rows.forEach((name, row) => network.append(new Option(name, row)));

  function cell(tag, ...parts) {
    const element = document.createElement(tag);
    element.append(...parts);
    return element;
  }

  function line(place) {
    const video = videos[place];
    const id = cell("code");
    video[0].split("/").forEach((part, k) => id.append(...(k ? ["/", cell("wbr")] : []), part));
    const head = cell("th");
    head.scope = "row";
    head.className = "name";
    if (isLinked.has(place)) {
      const link = cell("a", id);
      link.href = `${gallery}#video=${encodeURIComponent(raw[place] ?? video[0])}`;
      head.append(link);
    } else head.append(id);
    const known = cell("td", classes[video[1]]);
    known.className = "name";
    return cell("tr", head, known, ...rows.map((_, row) => answer(video, row)));
  }

  function answer(video, row) {
    const good = isCorrect(video, row);
    const sign = cell("span", good ? "✓" : "✗");
    sign.setAttribute("aria-hidden", "true");
    const text = cell("span", sign, good ? " correct" : ` ${classes[video[2 + 2 * row]]}`);
    text.className = good ? "correct" : "wrong";
    const share = cell("span", `${(video[3 + 2 * row] / 10).toFixed(1)} %`);
    share.className = "share";
    return cell("td", text, " ", share);
  }

  function draw() {
    start = Math.max(0, Math.min(start, atOnce * Math.floor((chosen.length - 1) / atOnce)));
    const shown = chosen.slice(start, start + atOnce);
    body.replaceChildren(...shown.map(line));
    const number = (value) => value.toLocaleString("en");
    const of = chosen.length === videos.length ? `${number(videos.length)} videos` : `${number(chosen.length)} of ${number(videos.length)} videos`;
    count.textContent = shown.length === chosen.length ? of : `${number(start + 1)} to ${number(start + shown.length)} of ${of}`;
    pages.hidden = chosen.length <= atOnce;
    find("video-before").disabled = start === 0;
    find("video-after").disabled = start + atOnce >= chosen.length;
  }

  function choose() {
    const words = fold(search.value).split(/\s+/).filter(Boolean), row = Number(network.value);
    chosen = order.filter((place) => {
      const video = videos[place];
      return (
        words.every((word) => texts[place].includes(word)) &&
        (!ofClass.value || video[1] === Number(ofClass.value)) &&
        (!outcome.value || isCorrect(video, row) === (outcome.value === "correct")) &&
        (!predicted.value || video[2 + 2 * row] === Number(predicted.value))
      );
    });
    start = 0;
    draw();
  }

  // Columns are 0 for the id, 1 for the class, and from 2 on one for each row: mistakes first, the surest first.
  function compare(column) {
    if (column === 0) return (a, b) => videos[a][0].localeCompare(videos[b][0]);
    if (column === 1) return (a, b) => classes[videos[a][1]].localeCompare(classes[videos[b][1]]) || a - b;
    const row = column - 2;
    const key = (video) => (isCorrect(video, row) ? 1 : -1) * video[3 + 2 * row] + (isCorrect(video, row) ? 1 : 0);
    return (a, b) => key(videos[a]) - key(videos[b]) || a - b;
  }

  const heads = [...document.querySelectorAll("#video-table thead th")];
  heads.forEach((head, column) => {
    const button = cell("button", ...head.childNodes);
    button.type = "button";
    head.append(button);
    if (column === 2) head.setAttribute("aria-sort", "ascending");
    button.addEventListener("click", () => {
      const before = heads.findIndex((one) => one.hasAttribute("aria-sort"));
      const descending = before === column && head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      order = videos.map((_, place) => place).sort(compare(column));
      if (descending) order.reverse();
      choose();
    });
  });
  for (const field of fields) field.addEventListener(field === search ? "input" : "change", choose);
  find("video-reset").addEventListener("click", () => {
    for (const field of fields) field.value = field === network ? "0" : "";
    choose();
  });
  for (const [id, step] of [["video-before", -atOnce], ["video-after", atOnce]])
    find(id).addEventListener("click", () => {
      start += step;
      draw();
      find("videos").scrollIntoView();
    });
  find("video-filters").hidden = false;
  draw();
}
