"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const prefersStill = matchMedia("(prefers-reduced-motion: reduce)");
const comparable = (text) => text.normalize("NFC").toLowerCase();

/* Return a new element with a class and a text. */
function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/* Return an element with a name in which a line may end after a slash, an underscore or a hyphen. */
function nameElement(tag, className, name) {
  const made = element(tag, className);
  for (const part of name.split(/(?<=[/_-])/)) made.append(part, document.createElement("wbr"));
  return made;
}

const addressOf = (video) => "#video=" + encodeURIComponent(video.id);
const stillOf = (video) => `${data.folder}/${video.pictures.name}${data.still}`;
const filmOf = (video) => `${data.folder}/${video.pictures.name}${data.film}`;
const isCorrect = (video) => video.scores[0][0] === video.class;
const speedText = (pictures) => `${pictures.speed.toFixed(2)} px/frame`;
const classText = (index) => data.classes[index] || "(no class)";

function lengthText(pictures) {
  const whole = `${pictures.whole.toFixed(1)} s`;
  return pictures.cut ? `film: ${pictures.seconds.toFixed(1)} s of ${whole}` : whole;
}

/* ---- cards ---- */

const AT_ONCE = 400; // cards that are made in one go, if classes are not larger
const cards = new Array(data.videos.length);
const groups = makeGroups();
const shown = new Array(data.videos.length).fill(true); // whether the filters let a video through
const flat = element("ul", "cards");
byId("videos").append(flat);
let numGroups = 0; // whose cards are made

/* Make the cards up to an index, class by class. A class is put into the page when it is complete, so that its size is known. */
function makeCards(until) {
  const waiting = [...groups.values()];
  while (numGroups < waiting.length && waiting[numGroups].members[0] < until) {
    const group = waiting[numGroups++];
    for (const index of group.members) {
      cards[index] = makeCard(data.videos[index], index);
      cards[index].hidden = !shown[index];
    }
    group.list.append(...group.members.map((index) => cards[index]));
    flat.before(group.section);
  }
}

/* Make the cards of thousands of videos little by little, so that the page answers meanwhile. */
function makeRest() {
  const made = [...groups.values()][numGroups]?.members[0];
  if (made === undefined) return;
  makeCards(made + AT_ONCE);
  setTimeout(makeRest);
}

function makeCard(video, index) {
  const card = element("li", "card");
  card.dataset.index = index;
  const link = element("a");
  link.href = addressOf(video);
  const picture = element("span", "picture");
  if (video.pictures) {
    const still = element("img");
    still.loading = "lazy";
    still.decoding = "async";
    still.width = video.pictures.width;
    still.height = video.pictures.height;
    still.alt = "";
    still.src = stillOf(video);
    picture.append(still);
  } else {
    picture.classList.add("none");
    picture.textContent = video.status === "failed" ? "no clip" : "not drawn";
  }
  link.append(picture, nameElement("span", "name", video.label));
  card.append(link);
  if (video.pictures) {
    const button = element("button", "play", "▶");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Play ${video.label}`);
    card.append(button);
  }
  const facts = [video.subset, video.pictures && speedText(video.pictures), video.pictures && lengthText(video.pictures)];
  const unbroken = facts.filter(Boolean).map((fact) => fact.replaceAll(" ", "\u00a0"));
  card.append(element("p", "", unbroken.join(" · ")));
  if (video.scores) {
    const [index, share] = video.scores[0];
    const text = isCorrect(video) ? `✓ correct, ${share.toFixed(0)} %` : `✗ predicted ${classText(index)}, ${share.toFixed(0)} %`;
    card.append(element("p", isCorrect(video) ? "correct" : "wrong", text));
  }
  if (video.status !== "done" || video.reason) {
    card.append(element("p", video.status === "done" ? "failed" : video.status, [video.status === "done" ? "" : video.status, video.reason].filter(Boolean).join(": ")));
  }
  return card;
}

/* A section for each class, with a heading and room for cards; videos of a class stand together in the data. */
function makeGroups() {
  const found = new Map();
  data.videos.forEach((video, index) => {
    if (!found.has(video.class)) {
      const section = element("section", "group"), heading = element("h2", "", classText(video.class));
      const number = element("span", "num"), list = element("ul", "cards");
      heading.append(number);
      section.append(heading, list);
      list.setAttribute("aria-label", classText(video.class));
      found.set(video.class, { section, list, number, members: [] });
    }
    found.get(video.class).members.push(index);
  });
  for (const { section, members } of found.values()) {
    section.style.containIntrinsicSize = `auto ${4 + 13 * Math.ceil(members.length / 3)}rem`; // about, for the scroll bar
  }
  return found;
}

/* ---- films ---- */

function startFilm(card) {
  const video = data.videos[card.dataset.index];
  if (!video.pictures || card.querySelector("video")) return;
  const film = makeFilm(video);
  film.setAttribute("aria-hidden", "true");
  film.tabIndex = -1;
  card.querySelector(".picture").append(film);
  play(film);
  setPressed(card, true);
}

function stopFilm(card) {
  const film = card.querySelector("video");
  if (!film) return;
  film.pause();
  film.removeAttribute("src");
  film.load();
  film.remove();
  setPressed(card, false);
}

function makeFilm(video) {
  const film = element("video");
  film.muted = film.loop = film.playsInline = true;
  film.disablePictureInPicture = true;
  film.width = video.pictures.width;
  film.height = video.pictures.height;
  film.src = filmOf(video);
  return film;
}

/* A film that is removed before it plays is no error, nor is a browser that does not play films by itself. */
function play(film) {
  film.play().catch(() => {});
}

function setPressed(card, pressed) {
  const button = card.querySelector(".play");
  button.setAttribute("aria-pressed", String(pressed));
  button.textContent = pressed ? "❚❚" : "▶";
}

const cardOf = (node) => (node instanceof Element ? node.closest(".card") : null);

byId("videos").addEventListener("pointerover", (event) => {
  const card = cardOf(event.target);
  if (card && event.pointerType === "mouse" && !prefersStill.matches && !card.contains(event.relatedTarget)) startFilm(card);
});
byId("videos").addEventListener("pointerout", (event) => {
  const card = cardOf(event.target);
  if (card && event.pointerType === "mouse" && !prefersStill.matches && !card.contains(event.relatedTarget)) stopFilm(card);
});
byId("videos").addEventListener("focusin", (event) => {
  if (event.target.matches("a:focus-visible") && !prefersStill.matches) startFilm(cardOf(event.target));
});
byId("videos").addEventListener("focusout", (event) => {
  const card = cardOf(event.target);
  if (card && event.target.matches("a") && !prefersStill.matches && !card.contains(event.relatedTarget)) stopFilm(card);
});
byId("videos").addEventListener("click", (event) => {
  const button = event.target.closest(".play");
  if (!button) return;
  const card = cardOf(button);
  if (card.querySelector("video")) stopFilm(card);
  else startFilm(card);
});

/* ---- filters and order ---- */

const form = byId("filters");
const texts = data.videos.map((video) => comparable(`${video.id} ${video.label}`)); // that the search looks through
const valueOf = (id) => byId(id)?.value ?? "";

function fillClasses(select, indices) {
  for (const index of indices) {
    const option = element("option", "", classText(index));
    option.value = index;
    select.append(option);
  }
}
fillClasses(byId("class"), groups.keys());
if (byId("predicted")) {
  const predicted = new Set(data.videos.filter((video) => video.scores).map((video) => video.scores[0][0]));
  fillClasses(byId("predicted"), [...data.classes.keys()].filter((index) => predicted.has(index)));
}

function isWanted(video, index, wanted) {
  if (!wanted.words.every((word) => texts[index].includes(word))) return false;
  if (wanted.class !== "" && video.class !== Number(wanted.class)) return false;
  if (wanted.subset !== "" && video.subset !== wanted.subset) return false;
  if (wanted.status !== "" && video.status !== wanted.status) return false;
  if (wanted.slowest !== "" && !(video.pictures && video.pictures.speed >= Number(wanted.slowest))) return false;
  if (wanted.fastest !== "" && !(video.pictures && video.pictures.speed <= Number(wanted.fastest))) return false;
  if (wanted.predicted !== "" && !(video.scores && video.scores[0][0] === Number(wanted.predicted))) return false;
  if (wanted.answer === "none") return !video.scores;
  return wanted.answer === "" || Boolean(video.scores && isCorrect(video) === (wanted.answer === "correct"));
}

const orders = {
  slow: (video) => video.pictures?.speed ?? Infinity,
  fast: (video) => -(video.pictures?.speed ?? -Infinity),
  sure: (video) => -(video.scores?.[0][1] ?? -Infinity),
};

function showWanted() {
  const wanted = Object.fromEntries(["class", "subset", "status", "slowest", "fastest", "answer", "predicted"].map((id) => [id, valueOf(id)]));
  wanted.words = comparable(valueOf("search")).split(/\s+/).filter(Boolean);
  data.videos.forEach((video, index) => {
    shown[index] = isWanted(video, index, wanted);
    if (cards[index]) cards[index].hidden = !shown[index];
  });
  for (const group of groups.values()) {
    const number = group.members.filter((index) => shown[index]).length;
    group.number.textContent = counted(number);
    group.section.hidden = !number || valueOf("order") !== "";
  }
  const all = shown.length, number = shown.filter(Boolean).length;
  byId("count").textContent = number === all ? `${counted(all)} shown.` : `${counted(number)} of ${all.toLocaleString("en")} shown.`;
}

const counted = (number) => `${number.toLocaleString("en")} video${number === 1 ? "" : "s"}`;

let sequence = data.videos.map((_, index) => index); // the order in which videos are shown

function arrange() {
  const key = orders[valueOf("order")];
  sequence = data.videos.map((_, index) => index);
  makeCards(data.videos.length);
  if (key) {
    const keys = data.videos.map(key);
    sequence.sort((a, b) => keys[a] - keys[b] || a - b);
    flat.append(...sequence.map((index) => cards[index]));
  } else {
    for (const group of groups.values()) group.list.append(...group.members.map((index) => cards[index]));
  }
  flat.hidden = !key;
  showWanted();
}

let waiting = 0;
form.addEventListener("input", (event) => {
  if (event.target.id === "order") return;
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(showWanted);
});
byId("order").addEventListener("change", arrange);
form.addEventListener("reset", () => setTimeout(arrange));
form.addEventListener("submit", (event) => event.preventDefault());

/* ---- one video, opened by the fragment #video=<id> ---- */

const detail = byId("detail");
let opened = -1;

function openFromAddress() {
  const match = /^#video=(.*)$/s.exec(location.hash);
  byId("missing").hidden = true;
  if (!match) {
    if (detail.open) detail.close();
    return;
  }
  let id = match[1];
  try {
    id = decodeURIComponent(id);
  } catch {
    /* It is no encoded id; perhaps somebody typed the id itself. */
  }
  const index = data.videos.findIndex((video) => video.id === id);
  if (index < 0) {
    if (detail.open) detail.close();
    const why = data.isSample ? "It may be outside the sample: flowkit inspect --gallery --all shows all videos." : "It may have been removed or renamed.";
    byId("missing").textContent = `The video “${id}” is not in this gallery. ${why}`;
    byId("missing").hidden = false;
    byId("missing").scrollIntoView({ block: "center" });
    return;
  }
  makeCards(index + 1);
  if (!shown[index]) {
    form.reset();
    arrange();
  }
  cards[index].scrollIntoView({ block: "center" });
  showDetail(index);
}

function showDetail(index) {
  const video = data.videos[index], pictures = video.pictures;
  cards[opened]?.classList.remove("opened");
  cards[index].classList.add("opened");
  opened = index;
  byId("detail-title").replaceChildren(nameElement("span", "", video.label));
  const stage = byId("stage");
  if (pictures) {
    const film = makeFilm(video);
    film.controls = true;
    film.poster = stillOf(video);
    film.setAttribute("aria-label", `Frames, on the left, and flow, on the right, of ${video.label}`);
    film.addEventListener("error", () => {
      if (film.isConnected) stage.replaceChildren(element("p", "", "This browser cannot play the film (VP9 in WebM), or its file is missing."));
    });
    stage.replaceChildren(film);
    if (!prefersStill.matches) play(film);
  } else {
    stage.replaceChildren(element("p", "", video.reason || "There is no picture."));
  }
  byId("cut").textContent = pictures?.cut
    ? `The film shows ${pictures.seconds.toFixed(1)} s of ${pictures.whole.toFixed(1)} s, from ${pictures.start.toFixed(1)} s on.`
    : "";
  const facts = [["class", classText(video.class)], ["split", video.subset], ["status", [video.status, video.reason].filter(Boolean).join(": ")]];
  if (pictures) {
    const perSecond = pictures.rate ? `, ${(pictures.speed * pictures.rate).toFixed(1)} px/s` : "";
    facts.push(["mean speed", speedText(pictures) + perSecond], ["rim of the wheel", `${pictures.scale} px/frame`]);
    facts.push(["frames", `${pictures.frames.toLocaleString("en")}, ${pictures.rate ? `${Number(pictures.rate.toFixed(2))} per second` : "frame rate unknown, shown at 25 per second"}`]);
  }
  byId("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
  byId("scores").hidden = !video.scores;
  byId("scores").tBodies[0].replaceChildren(...(video.scores ?? []).map(([label, share]) => scoreRow(video, label, share)));
  byId("before").disabled = neighbour(-1) < 0;
  byId("after").disabled = neighbour(1) < 0;
  if (!detail.open) detail.showModal();
}

function scoreRow(video, label, share) {
  const row = element("tr"), name = element("th", label === video.class ? "correct" : "", classText(label) + (label === video.class ? " (true class)" : ""));
  name.scope = "row";
  row.append(name, element("td", "n", `${share.toFixed(1)} %`));
  return row;
}

/* Return the index of the video that is shown before (-1) or after (1) the opened one; -1 if there is none. */
function neighbour(step) {
  const left = sequence.filter((index) => shown[index] || index === opened);
  return left[left.indexOf(opened) + step] ?? -1;
}

for (const [id, step] of [["before", -1], ["after", 1]]) {
  byId(id).addEventListener("click", () => {
    const index = neighbour(step);
    if (index >= 0) history.replaceState(null, "", addressOf(data.videos[index]));
    openFromAddress();
  });
}
byId("close").addEventListener("click", () => detail.close());
detail.addEventListener("click", (event) => {
  if (event.target === detail) detail.close();
});
detail.addEventListener("close", () => {
  byId("stage").replaceChildren();
  if (location.hash.startsWith("#video=")) history.replaceState(null, "", location.pathname + location.search);
  cards[opened]?.querySelector("a").focus({ preventScroll: true });
});
addEventListener("hashchange", openFromAddress);

flat.hidden = true;
showWanted();
makeRest();
openFromAddress();
