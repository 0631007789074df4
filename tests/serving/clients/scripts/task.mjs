/* What task.py says, for clients written in JavaScript. */

import { readFileSync, readSync } from "node:fs";

export const { URL: SERVER, BUSY } = process.env;
const task = JSON.parse(process.env.TASK);
export const { key: KEY, model: MODEL, query: QUERY, documents: DOCUMENTS } = task;
export const N = DOCUMENTS.length;

/* Runs a function that gives [[index, score], ..], best first. */
export async function scores(client, name, ask) {
  let got;
  try {
    got = { got: await ask() };
  } catch (error) {
    got = { error: `${error.name}: ${error.message}` };
  }
  say(client, name, { gives: "score", ...got });
}

/* Runs a function that ought to throw; `wants` is in "statusCode Name: message". */
export async function refusal(client, name, wants, ask) {
  let said;
  try {
    said = `no exception but ${JSON.stringify(await ask())}`;
  } catch (error) {
    said = `${error.statusCode ?? error.status} ${error.name}: ${error.message}`;
  }
  say(client, name, { wants, said });
}

function say(client, name, fields) {
  const manifest = new URL(`node_modules/${name}/package.json`, import.meta.url);
  const { version } = JSON.parse(readFileSync(manifest, "utf8"));
  console.log(JSON.stringify({ client, version: `${name} ${version}`, ...fields }));
  readSync(0, Buffer.alloc(1)); // the test looks which paths were asked, and then lets the script go on
}
