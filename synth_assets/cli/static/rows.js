// The rows page: select rows by key or pointer, show the selected one, and send decisions.
"use strict";

const page = document.body.dataset;
const rows = [...document.querySelectorAll("#list li[data-keys]")];
let selected = -1;
let loading = new AbortController();
let shown = null;

const keysOf = (row) => JSON.parse(row.dataset.keys);
const reviewer = () => byId("reviewer").value.trim();

function addressOf(what, keys) {
  const query = new URLSearchParams({ table: page.table });
  if (what === "why") query.set("row", keys[0]);
  else for (const key of keys) query.append("key", key);
  return `${page.address}/${what}?${query}`;
}

async function select(index) {
  if (index < 0 || index >= rows.length) return;
  rows[selected]?.setAttribute("aria-selected", "false");
  selected = index;
  rows[index].setAttribute("aria-selected", "true");
  rows[index].scrollIntoView({ block: "nearest" });
  byId("list").setAttribute("aria-activedescendant", rows[index].id);
  await load();
}

async function load() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  const keys = keysOf(rows[selected]);
  shown = null;
  closeEdit();
  show("");
  byId("detail").hidden = false;
  showWhy(page.explained ? "          …" : "");
  try {
    shown = await request(addressOf("row", keys), undefined, signal);
    byId("texts").replaceChildren(...shown.texts.flatMap(([name, text]) => [element("h3", name), element("p", text)]));
    byId("facts").replaceChildren(...shown.facts.map(([name, value]) => {
      const line = element("tr");
      line.append(element("td", name), element("td", value));
      return line;
    }));
    listReviews(shown.reviews);
    if (!page.explained) return;
    await new Promise((resolve) => setTimeout(resolve, 150)); // no request for each row that is passed with j
    if (signal.aborted) return;
    showWhy((await request(addressOf("why", keys), undefined, signal)).why);
  } catch (error) {
    if (signal.aborted) return;
    if (shown) showWhy(`          ${error.message}`);
    else show(error.message, "error");
  }
}

// The command wraps its texts as a column after a label of ten characters; the page wraps them itself.
function showWhy(text) {
  const entries = [];
  for (const line of text.split("\n")) {
    const [label, part] = [line.slice(0, 10).trim(), line.slice(10)];
    if (label || !entries.length) entries.push([label, part]);
    else entries.at(-1)[1] += ` ${part}`;
  }
  byId("why").replaceChildren(...entries.map(([label, part]) => {
    const line = element("tr");
    line.append(element("td", label), element("td", part));
    return line;
  }));
}

function listReviews(reviews) {
  byId("reviews").replaceChildren(...reviews.map((text) => element("li", text)));
}

async function decide(verdict, texts = {}) {
  if (!page.reviewed || selected < 0 || !shown) return;
  const index = selected;
  const note = byId("note").value;
  try {
    const answer = await request(`${page.address}/reviews`, {
      row_id: keysOf(rows[index])[0], verdict, by: reviewer(), note, ...texts,
    });
    rows[index].dataset.verdict = answer.verdict;
    rows[index].querySelector(".verdict").textContent = answer.verdict;
    byId("agreement").replaceChildren(...answer.agreement.map((line) => element("span", line)));
    byId("note").value = "";
    if (verdict !== "clear" && index + 1 < rows.length && !matchMedia("(max-width: 48rem)").matches) {
      await select(index + 1);
    } else {
      closeEdit();
      listReviews(answer.reviews);
    }
    if (answer.warning) show(answer.warning, "error");
    else show(`Stored: ${verdict === "clear" ? "withdrawn" : verdict}. The next synth run applies it.`, "done");
  } catch (error) {
    show(error.message, "error");
  }
}

function openEdit() {
  if (!page.reviewed || !shown) return;
  const form = byId("editing");
  for (const name of ["instruction", "response"]) form.elements[name].value = textOf(name);
  form.hidden = false;
  byId("texts").hidden = true;
  form.elements.response.focus();
}

function closeEdit() {
  byId("editing").hidden = true;
  byId("texts").hidden = false;
}

const textOf = (name) => shown.texts.find(([key]) => key === name)[1];

async function saveEdit() {
  const texts = {};
  for (const name of ["instruction", "response"]) {
    const { value } = byId("editing").elements[name];
    if (value !== textOf(name).replace(/\r\n?/g, "\n")) texts[name] = value;
  }
  if (Object.keys(texts).length) await decide("edit", texts);
  else show("Nothing was changed.", "error");
}

function openRecall() {
  if (!page.explained || selected < 0) return;
  byId("recall-reason").value = "";
  byId("recall").showModal();
}

async function recall() {
  const [row_id] = keysOf(rows[selected]);
  show(`Recalling ${row_id}; this takes about half a minute …`);
  try {
    await request(`${page.address}/recall`, { row_id, by: reviewer(), reason: byId("recall-reason").value });
    show(`Recalled ${row_id}. The next synth run filters and trains without it.`, "done");
  } catch (error) {
    show(error.message, "error");
  }
}

function closeDetail() {
  byId("detail").hidden = true;
  rows[selected]?.setAttribute("aria-selected", "false");
}

const actions = {
  keep: () => decide("keep"), reject: () => decide("reject"), clear: () => decide("clear"),
  edit: openEdit, cancel: closeEdit, recall: openRecall, close: closeDetail,
};
const keys = {
  j: () => select(selected + 1), k: () => select(selected - 1), ArrowDown: () => select(selected + 1),
  ArrowUp: () => select(selected - 1), a: actions.keep, r: actions.reject, e: actions.edit, u: actions.clear,
  c: actions.recall, n: () => byId("after")?.click(), p: () => byId("before")?.click(),
  "/": () => document.querySelector("#search input[type=search]").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.target.closest("dialog")) return;
  if (event.key === "Escape") {
    closeEdit();
    document.activeElement.blur();
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#editing")) {
    event.preventDefault();
    saveEdit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) actions[button.dataset.do]();
  const row = event.target.closest("#list li[data-keys]");
  if (row) select(rows.indexOf(row));
});
byId("editing").addEventListener("submit", (event) => { event.preventDefault(); saveEdit(); });
byId("recall").addEventListener("close", () => { if (byId("recall").returnValue === "recall") recall(); byId("recall").returnValue = ""; });
byId("reviewer").addEventListener("change", () => { remember("synth_reviewer", reviewer()); location.reload(); });
for (const choice of document.querySelectorAll("#search select")) {
  choice.addEventListener("change", () => byId("search").requestSubmit());
}

async function summarise() {
  const { rows: count, choices } = await request(`${page.address}/summary${location.search || "?table=" + page.table}`);
  byId("count").textContent = `${count.toLocaleString("en")} row${count === 1 ? "" : "s"}`;
  for (const [name, values] of Object.entries(choices)) {
    const list = byId("search").elements[name];
    const current = list.value;
    list.replaceChildren(new Option("any", ""), ...values.map(([value, number]) =>
      new Option(`${value} (${number.toLocaleString("en")})`, value, false, value === current)));
    list.value = current;
  }
}
summarise().catch((error) => show(error.message, "error"));
