// The playground: ask the chosen models one after another, show the answers side by side, and send votes.
"use strict";

const page = document.body.dataset;
let turns = [];
let answers = [];
let busy = false;
let pending = null; // the question whose answers may be voted on

const number = (id) => Number(byId(id).value);
const voter = () => byId("reviewer").value.trim();

function shuffled(list) {
  const copy = [...list];
  for (let last = copy.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [copy[last], copy[other]] = [copy[other], copy[last]];
  }
  return copy;
}

function addTurn(role, text) {
  const turn = element("div", undefined, { className: "turn" });
  const line = element("p", text);
  line.dataset.role = role;
  turn.append(line);
  byId("conversation").append(turn);
  return turn;
}

async function ask() {
  if (busy) return;
  if (pending) {
    show("Vote for an answer first, or continue with one.", "error");
    return;
  }
  const question = byId("question").value.trim();
  const chosen = [...document.querySelectorAll("[data-model]")].map((list) => list.value).filter(Boolean);
  const models = [...new Set(chosen)];
  if (!question || !models.length) return;
  const blind = byId("blind").checked;
  const opening = byId("system").value.trim() && !turns.length ? [{ role: "system", content: byId("system").value.trim() }] : [];
  const asked = [...turns, ...opening, { role: "user", content: question }];
  const turn = addTurn("user", question);
  const grid = element("div", undefined, { className: "answers" });
  turn.append(grid);
  byId("question").value = "";
  answers = [];
  busy = true;
  byId("system").disabled = true;
  for (const [index, model] of (blind ? shuffled(models) : models).entries()) {
    const card = element("article", undefined, { className: "answer" });
    const heading = element("h3", blind ? `Answer ${index + 1}` : "…");
    const text = element("div", "…", { className: "text" });
    card.append(heading, text);
    grid.append(card);
    show(`Answer ${index + 1} of ${models.length}: loading and writing …`);
    try {
      const answer = await request(`${page.address}/answers`, {
        model, turns: asked, temperature: number("temperature"), max_new_tokens: number("max_new_tokens"), seed: number("seed"),
      });
      text.textContent = answer.text || "(empty)";
      answers.push({ ...answer, card, heading });
      if (!blind) reveal(answers.at(-1));
    } catch (error) {
      text.textContent = error.message;
      text.classList.add("error");
    }
  }
  busy = false;
  show("");
  if (!answers.length) {
    byId("question").value = question;
    turn.remove();
    byId("system").disabled = turns.length > 0;
    show(grid.textContent, "error");
    return;
  }
  pending = asked;
  for (const [index, answer] of answers.entries()) {
    const votes = element("p", undefined, { className: "votes" });
    const vote = element("button", answers.length > 1 ? `Better (${index + 1})` : "Continue", { type: "button" });
    vote.addEventListener("click", () => (answers.length > 1 ? decide(index) : go(index)));
    votes.append(vote);
    if (answers.length > 1) {
      const on = element("button", "Continue without a vote", { type: "button" });
      on.addEventListener("click", () => go(index));
      votes.append(on);
    }
    answer.card.append(votes);
  }
  answers[0].card.scrollIntoView({ block: "nearest" });
}

function reveal(answer) {
  const end = answer.finish_reason === "length" ? ", cut off" : "";
  answer.heading.replaceChildren(
    element("span", answer.title),
    element("span", ` ${answer.tokens} tokens, ${answer.seconds.toFixed(1)} s${end}`, { className: "soft" }),
  );
}

async function decide(index) {
  if (!pending || busy || index >= answers.length || answers.length < 2) return;
  busy = true;
  try {
    const others = answers.filter((_, other) => other !== index).map((answer) => answer.id);
    const { rows } = await request(`${page.address}/votes`, { chosen: answers[index].id, others, by: voter() });
    go(index);
    answers[index].card.classList.add("chosen");
    show(`Stored ${rows.length} pair${rows.length === 1 ? "" : "s"}: ${rows.join(", ")}. The next synth run imports them.`, "done");
  } catch (error) {
    show(error.message, "error");
  } finally {
    busy = false;
  }
}

function go(index) {
  for (const answer of answers) {
    reveal(answer);
    answer.card.querySelector(".votes").remove();
  }
  turns = [...pending, { role: "assistant", content: answers[index].text }];
  pending = null;
  byId("question").focus();
}

function restart() {
  if (busy) return;
  turns = [];
  answers = [];
  pending = null;
  byId("system").disabled = false;
  byId("conversation").replaceChildren();
  show("");
}

byId("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
byId("restart").addEventListener("click", restart);
byId("unload").addEventListener("click", async () => {
  try { await request(`${page.address}/unload`, {}); show("The models were unloaded.", "done"); } catch (error) { show(error.message, "error"); }
});
byId("reviewer").addEventListener("change", () => remember("synth_reviewer", voter()));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.id === "question") {
    event.preventDefault();
    ask();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (["1", "2", "3"].includes(event.key)) decide(Number(event.key) - 1);
});
