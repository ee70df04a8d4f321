"use strict";
// The page: what was given is shown, what was found is shown. Texts are set as texts, never as HTML.

const at = id => document.getElementById(id);
const SHOWN = 5;
const TYPED = 300;  // milliseconds after the last letter
const state = { model: null, banks: [], vocabulary: null, question: null, embedding: null, times: null, work: Promise.resolve(), typing: 0 };

function made(tag, text = "", type = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = type;
  return element;
}

const percent = share => share > 0 && share < 0.005 ? "< 1%" : `${Math.round(100 * share)}%`;
const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`;

function tell(text, failed = false) {
  at("state").hidden = !text;
  at("state").textContent = text;
  at("state").classList.toggle("failed", failed);
}

function tellWrong(found) {
  at("wrong").hidden = !found;
  at("wrong").replaceChildren();
  if (!found) return;
  at("wrong").append(`${found.wrong}.${found.near.length ? " Did you mean" : ""}`);
  for (const name of found.near) {
    const button = made("button", name);
    button.type = "button";
    button.onclick = () => {
      const quoted = /[,"]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
      at("names").value = at("names").value.replace(found.name, () => quoted);
      answer();
    };
    at("wrong").append(button);
  }
}

// The classes that are asked for: those typed, else all of a bank; null where a name is unknown.
function classesAsked(text, bank) {
  if (!text) return bank.labels.map((label, place) => ({ label, row: bank.row(place) }));
  const others = [...state.banks.filter(one => one !== bank), ...(state.vocabulary ? [state.vocabulary] : [])];
  const found = asked(text, [bank, ...others]);
  tellWrong(found.wrong ? found : null);
  return found.classes?.length ? found.classes : null;
}

// The classes, their rows and what says that a picture is none of them: made when other names are asked for.
function question() {
  const bank = state.banks[Number(at("bank").value)], text = at("names").value.trim();
  const key = JSON.stringify([at("bank").value, text]);
  if (state.question?.key !== key) {
    const classes = classesAsked(text, bank), rows = classes?.map(one => one.row);
    const isNone = classes && rejecter(state.model.reject, rows, state.vocabulary, text ? null : bank.far);
    state.question = classes && { key, labels: classes.map(one => one.label), rows, isNone };
  }
  return state.question;
}

function show(labels, scores, none) {
  at("scores").replaceChildren();
  at("scores").classList.toggle("unlikely", none);
  const places = largest(scores, SHOWN);
  at("best").className = none ? "none" : "";
  at("best").replaceChildren(made("span", none ? "none of these" : labels[places[0]]));
  if (!none) at("best").append(made("span", percent(scores[places[0]]), "number"));
  for (const place of places) {
    const row = made("li"), track = made("div", "", "track"), bar = made("div", "", "bar");
    bar.style.width = `${100 * scores[place]}%`;
    track.append(bar);
    row.append(made("span", labels[place]), made("span", percent(scores[place]), "number"), track);
    at("scores").append(row);
  }
}

function answer() {
  if (!state.banks.length) return;
  tellWrong(null);
  tellKnown();
  const { embedding, vocabulary } = state, wanted = question();
  at("found").hidden = !wanted || !embedding;
  if (!wanted || !embedding) return;
  const cosines = wanted.rows.map(row => dot(row, embedding)), words = vocabulary?.cosines(embedding);
  at("reject").disabled = !wanted.isNone;
  const none = Boolean(wanted.isNone) && at("reject").checked && wanted.isNone(cosines, words);
  show(wanted.labels, softmax(cosines, state.model.temperature), none);
  at("open").hidden = !vocabulary;
  if (vocabulary) {
    at("words").replaceChildren(...largest(words, SHOWN).map(place => made("span", vocabulary.labels[place])));
  }
  const { decoding, preparing, inModel } = state.times, all = decoding + preparing + inModel;
  at("time").textContent = `${Math.round(all)} ms on this device: ${Math.round(decoding)} to decode, `
    + `${Math.round(preparing)} to prepare, ${Math.round(inModel)} in the model.`;
}

// One picture after another, the last one given counts: the model takes one at a time.
function take(file) {
  if (!file) return;
  state.wanted = file;
  state.work = state.work.then(() => file === state.wanted && look(file));
}

async function look(file) {
  if (!state.embed) return;
  const steps = state.model.preprocessing, times = [performance.now()];
  try {
    const bitmap = await decoded(file, steps);
    times.push(performance.now());
    const values = prepared(bitmap, steps);
    bitmap.close();
    times.push(performance.now());
    state.embedding = await state.embed(values);
    times.push(performance.now());
  } catch (error) {
    at("found").hidden = true;
    tell(error.message, true);
    return;
  }
  state.times = { decoding: times[1] - times[0], preparing: times[2] - times[1], inModel: times[3] - times[2] };
  tell("");
  URL.revokeObjectURL(at("shown").src);
  at("shown").src = URL.createObjectURL(file);
  at("shown").hidden = false;
  at("hint").hidden = true;
  at("picture").classList.add("filled");
  answer();
}

function listen() {
  for (const id of ["file", "camera"]) {
    at(id).onchange = () => { take(at(id).files[0]); at(id).value = ""; };
  }
  document.ondragover = event => { event.preventDefault(); at("picture").classList.add("over"); };
  document.ondragleave = event => { if (!event.relatedTarget) at("picture").classList.remove("over"); };
  document.ondrop = event => {
    event.preventDefault();
    at("picture").classList.remove("over");
    take(event.dataTransfer.files[0]);
  };
  document.onpaste = event => take(event.clipboardData.files[0]);
  for (const id of ["bank", "reject"]) at(id).oninput = answer;
  at("names").oninput = () => {
    clearTimeout(state.typing);
    state.typing = setTimeout(answer, TYPED);
  };
}

// What is known before the model has started: its names, its size.
function introduce() {
  const { model, banks } = state;
  banks.forEach((bank, i) => at("bank").append(new Option(`${bank.name} (${bank.labels.length})`, i)));
  at("of").hidden = banks.length < 2;
  at("maybe").hidden = !model.reject;
  at("reject").checked = Boolean(model.reject) && !model.reject.near_chance;
  at("about").textContent = `${model.name}: ${model.arch}, ${(model.parameters / 1e6).toFixed(1)} million parameters, `
    + `${model.precision}, ${megabytes(model.bytes)}. ${model.about}`;
}

// Which names can be typed, and what is asked where none are.
function tellKnown() {
  const { labels } = state.banks[Number(at("bank").value)], words = state.vocabulary?.labels.length;
  at("known").textContent = `Left empty: ${labels.slice(0, 3).join(", ")}${labels.length > 3 ? ` and ${labels.length - 3} more` : ""}.`
    + (words ? ` Any of ${words.toLocaleString("en")} words can be typed.` : "");
}

async function start() {
  listen();
  try {
    for (const name of ["MODEL", "WORDS", "WEIGHTS", "ort", "RUNTIME"]) {
      if (!(name in globalThis)) throw new Error("a file of this page is missing: copy its whole folder again");
    }
    state.model = MODEL;
    [state.banks, state.vocabulary] = await Promise.all([banksOf(MODEL), vocabularyOf(WORDS)]);
    introduce();
    tellKnown();
    state.embed = (await opened(MODEL, WEIGHTS, RUNTIME)).embed;
    tell("Give it a picture.");
  } catch (error) {
    tell(`The model cannot be started here: ${error.message}`, true);
    return;
  }}

state.work = start();
