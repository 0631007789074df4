/* Clients from npm: Cohere, Together, Voyage, and those of LangChain and the AI SDK. */

import assert from "node:assert/strict";

import { createCohere } from "@ai-sdk/cohere";
import { createTogetherAI } from "@ai-sdk/togetherai";
import { CohereRerank } from "@langchain/cohere";
import { rerank } from "ai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import Together from "together-ai";
import { VoyageAIClient } from "voyageai";

import { BUSY, DOCUMENTS, KEY, MODEL, N, QUERY, SERVER, refusal, scores } from "./task.mjs";

const once = { maxRetries: 0 };
const question = { model: MODEL, query: QUERY };

const ofCohere = ({ results }) => results.map((found) => [found.index, found.relevanceScore]);
const v2 = (baseUrl, token = KEY, model = MODEL) =>
  new CohereClientV2({ baseUrl, token })
    .rerank({ ...question, model, documents: DOCUMENTS, topN: N }, once)
    .then(ofCohere);

await scores("cohere-ai CohereClientV2", "cohere-ai", () => v2(SERVER));
await refusal("cohere-ai CohereClientV2", "cohere-ai", "UnauthorizedError", () => v2(SERVER, "wrong"));
await refusal("cohere-ai CohereClientV2", "cohere-ai", "NotFoundError", () => v2(SERVER, KEY, "no-such"));
await refusal("cohere-ai CohereClientV2", "cohere-ai", "TooManyRequestsError", () => v2(BUSY));

await scores("cohere-ai CohereClientV2, environment", "cohere-ai", () =>
  new CohereClientV2({ environment: SERVER, token: KEY }).rerank({ ...question, documents: DOCUMENTS }).then(ofCohere),
);

await scores("cohere-ai CohereClient (v1)", "cohere-ai", async () => {
  const answer = await new CohereClient({ baseUrl: SERVER, token: KEY }).rerank({
    ...question,
    documents: DOCUMENTS.map((text) => ({ text, title: "t" })),
    rankFields: ["text"],
    returnDocuments: true,
  });
  for (const found of answer.results) assert.equal(found.document.text, DOCUMENTS[found.index]);
  return ofCohere(answer);
});

await scores("@langchain/cohere CohereRerank", "@langchain/cohere", async () => {
  // its own dependency, an earlier cohere-ai, has the same constructor
  const client = new CohereClient({ baseUrl: SERVER, token: KEY });
  const found = await new CohereRerank({ client, model: MODEL, topN: N }).rerank(DOCUMENTS, QUERY);
  return found.map(({ index, relevanceScore }) => [index, relevanceScore]);
});

const ofSdk = ({ ranking }) =>
  ranking.map((found) => {
    assert.equal(found.document, DOCUMENTS[found.originalIndex]);
    return [found.originalIndex, found.score];
  });
const sdk = (provider, topN = N) =>
  rerank({ model: provider.reranking(MODEL), documents: DOCUMENTS, query: QUERY, topN, ...once }).then(ofSdk);
const sdkCohere = (url, apiKey = KEY) => sdk(createCohere({ baseURL: `${url}/v2`, apiKey }));
const sdkTogether = (url, apiKey = KEY) => sdk(createTogetherAI({ baseURL: `${url}/v1`, apiKey }));

for (const [name, ask] of [
  ["@ai-sdk/cohere", sdkCohere],
  ["@ai-sdk/togetherai", sdkTogether],
]) {
  await scores(`${name} with ai's rerank()`, name, () => ask(SERVER));
  await refusal(`${name} with ai's rerank()`, name, "401 AI_APICallError", () => ask(SERVER, "wrong"));
  await refusal(`${name} with ai's rerank()`, name, "429 AI_APICallError", () => ask(BUSY));
}

const together = (baseURL, apiKey = KEY) =>
  new Together({ baseURL: `${baseURL}/v1`, apiKey, ...once }).rerank
    .create({ ...question, documents: DOCUMENTS, top_n: N, return_documents: true })
    .then(({ results }) =>
      results.map((found) => {
        assert.equal(found.document.text, DOCUMENTS[found.index]);
        return [found.index, found.relevance_score];
      }),
    );

await scores("together-ai", "together-ai", () => together(SERVER));
await refusal("together-ai", "together-ai", "401", () => together(SERVER, "wrong"));
await refusal("together-ai", "together-ai", "429", () => together(BUSY));

const voyage = (url, apiKey = KEY) =>
  new VoyageAIClient({ environment: `${url}/v1`, apiKey })
    .rerank({ ...question, documents: DOCUMENTS, topK: N, returnDocuments: true }, once)
    .then(({ data, usage }) => {
      assert.ok(usage.totalTokens > 0);
      return data.map((found) => {
        assert.equal(found.document, DOCUMENTS[found.index]);
        return [found.index, found.relevanceScore];
      });
    });

await scores("voyageai VoyageAIClient", "voyageai", () => voyage(SERVER));
await refusal("voyageai VoyageAIClient", "voyageai", "401", () => voyage(SERVER, "wrong"));
await refusal("voyageai VoyageAIClient", "voyageai", "429", () => voyage(BUSY));
