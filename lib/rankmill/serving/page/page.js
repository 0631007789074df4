// The page of the endpoint. Texts of people and of the server become text nodes, never HTML.

const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
const url = (path) => new URL(path, document.baseURI).href;
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const KEY = "rankmill-api-key";
const EXAMPLE = {
  query: "run an external command and capture what it prints",
  documents: [
    "builtins.print: Print the values to a stream, or to sys.stdout by default.",
    "contextlib.redirect_stdout: Context manager that sends what is printed to another file, within this program.",
    "cmd.Cmd.onecmd: Interpret the argument as though it had been typed in response to the prompt.",
    "signal.signal: Set the handler for a signal.",
    "subprocess.check_output: Run a program with arguments and return its output.",
    "os.execv: Execute a program, replacing the current process.",
    "warnings.catch_warnings: A context manager that copies and restores the filter, and can record what is shown.",
    "subprocess.getoutput: Return the standard output and error of executing a shell command.",
  ],
};
const PHASES = { read: "reading", prepare: "tokenising", score: "scoring", render: "rendering" };

// --- the server

class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body, signal) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  const method = body === undefined ? "GET" : "POST";
  let response;
  let answer;
  try {
    response = await fetch(url(path), { method, headers, body: body && JSON.stringify(body), signal });
    answer = await response.json().catch(() => null);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(
      error instanceof TypeError ? "The server cannot be reached. Is it still running?" : `${error.message}`,
    );
  }
  if (!response.ok || answer === null) throw new Problem(inWords(response, answer), response.status);
  return { answer, headers: response.headers };
}

function inWords(response, answer) {
  if (response.status === 401) {
    return $("key").value ? "The server does not accept this API key." : "This server asks for an API key.";
  }
  const said = answer?.error?.message ?? answer?.message ?? answer?.detail;
  const words = typeof said === "string" ? said : `The server answered ${response.status} and no reason.`;
  const wait = response.headers.get("retry-after");
  return wait ? `${words} It asks for a pause of ${plural(Number(wait), "second")}.` : words;
}

async function meet() {
  let models;
  try {
    models = (await ask("v1/models")).answer.data;
  } catch (error) {
    if (error.status === 401) askForKey();
    if (error.status !== 401 || $("key").value) complain(error.message);
    return;
  }
  complain("");
  const before = $("model").value;
  $("model").replaceChildren(
    ...models.map((model, i) => {
      const name = model.id === model.root ? model.id : `${model.id} (alias of ${model.root})`;
      return new Option(i === 0 ? `${name} (default)` : name, model.id);
    }),
  );
  if (models.some((model) => model.id === before)) $("model").value = before;
  const paths = (await ask("openapi.json").catch(() => null))?.answer.paths ?? {};
  $("source").hidden = !("/v1/search" in paths);
  refresh();
}

function askForKey() {
  $("key-box").hidden = false;
  $("key").focus();
}

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

// --- the request

function documents() {
  const text = $("documents").value.replaceAll("\r\n", "\n");
  const parts = chosen("split") === "lines" ? text.split("\n") : text.split(/\n[^\S\n]*\n/);
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}

function request() {
  const model = $("model").value;
  const query = $("query").value;
  if (searching()) {
    const k = Number($("retrieve").value) || 20;
    const body = { query, retrieve_k: k, top_k: k };
    if ($("mode").value) body.mode = $("mode").value;
    if ($("filter").value.trim()) body.filter = $("filter").value.trim();
    if (model) body.model = model;
    return { path: "v1/search", body };
  }
  const body = { query, documents: documents(), return_logits: true };
  if (model) body.model = model;
  if ($("top").value) body.top_n = Number($("top").value);
  if ($("activation").value) body.activation = $("activation").value;
  if ($("long").value) body.long_documents = $("long").value;
  return { path: "v1/rerank", body };
}

const searching = () => !$("source").hidden && chosen("source") === "search";

// --- the request as code; the key itself never appears in it

function inCurl({ path, body }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [`curl ${quoted(url(path))}`];
  if (keyed()) lines.push('-H "Authorization: Bearer $RANKMILL_API_KEY"');
  lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

function inPython({ path, body }) {
  const headers = [`"Content-Type": "application/json"`];
  if (keyed()) headers.push(`"Authorization": "Bearer " + os.environ["RANKMILL_API_KEY"]`);
  return [
    "import json",
    ...(keyed() ? ["import os"] : []),
    "from urllib.request import Request, urlopen",
    "",
    `body = ${literal(body, "")}`,
    `headers = {${headers.join(", ")}}`,
    `request = Request(${literal(url(path))}, json.dumps(body).encode(), headers)`,
    "with urlopen(request) as answer:",
    '    for result in json.load(answer)["results"]:',
    "        print(result)",
  ].join("\n");
}

function literal(value, indent = "") {
  if (value === true) return "True";
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    return value.length ? `[\n${value.map((item) => `${inner}${literal(item, inner)},\n`).join("")}${indent}]` : "[]";
  }
  if (typeof value === "object") {
    const fields = Object.entries(value).map(([name, field]) => `${inner}"${name}": ${literal(field, inner)},\n`);
    return `{\n${fields.join("")}${indent}}`;
  }
  return JSON.stringify(value);
}

const keyed = () => !$("key-box").hidden;

function refresh() {
  $("search").hidden = !searching();
  $("paste").hidden = searching();
  $("options").hidden = searching();
  const count = documents().length;
  $("count").textContent = count ? plural(count, "document") : "No documents yet";
  $("example").hidden = count > 0;
  $("go-text").textContent = searching() ? "Search and rerank" : "Rerank";
  $("code").textContent = (chosen("language") === "curl" ? inCurl : inPython)(request());
}

async function copy() {
  const text = $("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // addresses without TLS have no clipboard: what is selected can still be copied
    getSelection().selectAllChildren($("code"));
    if (!document.execCommand("copy")) return;
  }
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

// --- what came back

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Both stages in one shape: first, every document in the first stage's order; best, what is left, best first.
function understand({ path, body }, answer) {
  if (path === "v1/rerank") {
    return {
      first: body.documents.map((text, index) => ({ index, text })),
      best: answer.results.map((result) => ({
        index: result.index,
        score: result.relevance_score,
        logit: result.logit,
        truncated: result.truncated,
        chunk: result.best_chunk,
      })),
    };
  }
  const best = answer.results.map((result) => ({ ...result, index: result.retrieval_rank - 1 }));
  const first = best
    .map(({ index, document_id, title, text, retrieval_score }) => ({
      index,
      name: `${document_id}`,
      text: [title, text].filter(Boolean).join(" "),
      score: retrieval_score,
    }))
    .toSorted((a, b) => a.index - b.index);
  return { first, best };
}

function show(sent, answer, headers, milliseconds) {
  const { first, best } = understand(sent, answer);
  const texts = new Map(first.map((item) => [item.index, item]));
  const places = new Map(best.map((item, rank) => [item.index, rank]));
  $("before-title").textContent = sent.path === "v1/search" ? "First stage" : "As they came";
  $("board").style.setProperty("--ranks", first.length);
  $("before").replaceChildren(...first.map((item) => before(item, places.get(item.index))));
  const width = barWidths(best);
  $("after").replaceChildren(...best.map((item, rank) => after(item, rank, texts.get(item.index), width(item))));
  $("facts").replaceChildren(...facts(answer, headers, milliseconds, best));
  $("empty").hidden = true;
  $("results").hidden = false;
  for (const text of $("results").querySelectorAll(".text")) addMore(text);
  drawStrands();
  const risen = best.filter((item, rank) => item.index > rank).length;
  $("said").textContent = `${plural(best.length, "document")} reranked, ${risen} of them moved up.`;
}

function before(item, place) {
  const text = element("p", "text", item.text);
  const made = element("li", place === undefined ? "item left-out" : "item", rankOf(item.index), element("div", "body"));
  if (item.name) made.lastChild.append(element("p", "name", item.name));
  made.lastChild.append(text);
  if (place === undefined) made.lastChild.append(element("p", "numbers", "not among the best"));
  else if (item.score !== undefined) made.lastChild.append(element("p", "numbers", number("score", item.score)));
  made.dataset.index = item.index;
  return made;
}

function after(item, rank, { text, name }, width) {
  const moved = item.index - rank;
  const way = moved > 0 ? "up" : moved < 0 ? "down" : "same";
  const arrow = element("span", "", { up: "↑", down: "↓", same: "=" }[way] + (moved ? Math.abs(moved) : ""));
  arrow.ariaHidden = "true";
  const words = moved ? `${way} by ${Math.abs(moved)}, was ${item.index + 1}` : "where it was";
  const badge = element("span", `move ${way}`, arrow, element("span", "unseen", words));
  badge.title = words;
  const bar = element("span", "bar", element("span", ""));
  bar.firstChild.style.width = `${width}%`;
  const numbers = element("p", "numbers", number("score", item.score));
  if (item.logit !== undefined) numbers.append(number("logit", item.logit));
  if (item.truncated) {
    const flag = element("span", "flag", "truncated");
    flag.title = "The model read only the beginning of this text, or of the query.";
    numbers.append(flag);
  }
  const body = element("div", "body", marked(text, item.chunk), bar, numbers);
  if (name) body.prepend(element("p", "name", name));
  const made = element("li", `item ${way}`, rankOf(rank), body, badge);
  made.dataset.index = item.index;
  return made;
}

const rankOf = (rank) => element("span", "rank", `${rank + 1}`);

function number(name, value) {
  const tiny = value !== 0 && Math.abs(value) < 0.0001;
  return element("span", "number", `${name} `, element("b", "", tiny ? value.toExponential(1) : value.toFixed(4)));
}

// A chunk is counted in characters, which are not JavaScript's.
function marked(text, chunk) {
  if (!chunk) return element("p", "text", text);
  const letters = Array.from(text);
  const part = (from, to) => letters.slice(from, to).join("");
  return element("p", "text", part(0, chunk[0]), element("mark", "", part(...chunk)), part(chunk[1]));
}

// Scores between 0 and 1 are drawn as they are; others between the least and the greatest.
function barWidths(best) {
  const scores = best.map((item) => item.score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  if (low >= 0 && high <= 1) return (item) => 100 * item.score;
  return (item) => (high > low ? (100 * (item.score - low)) / (high - low) : 100);
}

function addMore(text) {
  if (text.scrollHeight <= text.clientHeight + 1) return;
  const more = element("button", "quiet more", "more");
  more.type = "button";
  more.ariaExpanded = "false";
  more.addEventListener("click", () => {
    const open = text.classList.toggle("open");
    more.textContent = open ? "less" : "more";
    more.ariaExpanded = `${open}`;
    drawStrands();
  });
  text.after(more);
}

function facts(answer, headers, milliseconds, best) {
  const found = [];
  const add = (name, value, title = "") => {
    const made = element("div", "", element("dt", "", name), element("dd", "", value));
    if (title) made.title = title;
    found.push(made);
  };
  const timed = [...(headers.get("server-timing") ?? "").matchAll(/([\w-]+);dur=([\d.]+)/g)];
  const phases = answer.timings_ms ? Object.entries(answer.timings_ms) : timed.map(([, name, value]) => [name, value]);
  const took = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
  for (const [name, value] of phases) add(PHASES[name] ?? name, took(Number(value)), "Measured in the server");
  add("round trip", took(milliseconds), "Measured here, in the browser");
  if (answer.usage) add("tokens", answer.usage.total_tokens.toLocaleString("en"));
  const cut = best.filter((item) => item.truncated).length;
  if (cut) add("truncated", `${cut} of ${best.length}`);
  const cached = Number(headers.get("x-cached-pairs") ?? 0);
  if (cached) add("from cache", plural(cached, "pair"));
  if (answer.model) add("model", answer.model, `Revision ${answer.model_revision ?? "unknown"}`);
  return found;
}

function drawStrands() {
  const svg = $("strands");
  const frame = svg.getBoundingClientRect();
  svg.replaceChildren();
  if (!frame.width) return;
  svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  const middle = (item) => {
    const box = item.getBoundingClientRect();
    return box.top + box.height / 2 - frame.top;
  };
  for (const item of $("after").children) {
    const from = middle($("before").querySelector(`[data-index="${item.dataset.index}"]`));
    const to = middle(item);
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const half = frame.width / 2;
    path.setAttribute("d", `M0 ${from}C${half} ${from} ${half} ${to} ${frame.width} ${to}`);
    path.setAttribute("class", item.classList[1]);
    path.dataset.index = item.dataset.index;
    svg.append(path);
  }
}

function light(event) {
  const index = event.target.closest?.("[data-index]")?.dataset.index;
  for (const part of $("board").querySelectorAll("[data-index]")) {
    part.classList.toggle("lit", event.type !== "pointerleave" && part.dataset.index === index);
  }
}

// --- what people do

let running = null;

async function run() {
  const sent = request();
  if (!sent.body.query.trim()) return complain("Type a query first.");
  if (sent.body.documents?.length === 0) return complain("Paste some documents first, one a line.");
  running?.abort();
  const mine = (running = new AbortController());
  complain("");
  $("go").ariaBusy = "true";
  const start = performance.now();
  try {
    const { answer, headers } = await ask(sent.path, sent.body, mine.signal);
    show(sent, answer, headers, performance.now() - start);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askForKey();
    const missing = sent.path === "v1/search" && [404, 503].includes(error.status);
    complain(missing ? `This server cannot search: ${error.message}` : error.message);
  } finally {
    if (running === mine) $("go").ariaBusy = "false";
  }
}

let splitChosen = false;

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
$("form").addEventListener("keydown", (event) => {
  const asked = event.ctrlKey || event.metaKey || (event.target === $("query") && !event.shiftKey);
  if (event.key !== "Enter" || event.isComposing || !asked) return;
  event.preventDefault();
  run();
});
$("form").addEventListener("input", refresh);
$("documents").addEventListener("input", () => {
  if (splitChosen) return;
  const kind = /\S\s*\n[^\S\n]*\n\s*\S/.test($("documents").value) ? "paragraphs" : "lines";
  document.querySelector(`input[value="${kind}"]`).checked = true;
});
for (const radio of document.querySelectorAll('input[name="split"]')) {
  radio.addEventListener("change", () => (splitChosen = true));
}
for (const radio of document.querySelectorAll('input[name="language"]')) radio.addEventListener("change", refresh);
$("example").addEventListener("click", () => {
  $("query").value = EXAMPLE.query;
  $("documents").value = EXAMPLE.documents.join("\n");
  refresh();
  run();
});
$("key").addEventListener("change", () => {
  sessionStorage.setItem(KEY, $("key").value);
  meet();
});
$("copy").addEventListener("click", copy);
$("board").addEventListener("pointerover", light);
$("board").addEventListener("pointerleave", light);
new ResizeObserver(drawStrands).observe($("board"));
if (/Mac|iPhone|iPad/.test(navigator.platform)) document.querySelector("kbd").textContent = "⌘ ⏎";

$("key").value = sessionStorage.getItem(KEY) ?? "";
$("key-box").hidden = !$("key").value;
refresh();
meet();
