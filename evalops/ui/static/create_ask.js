// What the pages of a new evaluation ask of the server, and how they say what is wrong.

export class Refused extends Error {
  constructor(status, body) {
    super(body?.error?.message ?? `the server answered with ${status}`);
    this.status = status;
    this.body = body ?? {};
    this.code = body?.error?.code ?? null;
  }
}

export const lost = new Refused(0, {error: {message: "the server does not answer: is `evalops ui` still running?"}});

export async function ask(path, value) {
  const options = {headers: {accept: "application/json"}};
  if (value !== undefined) {
    Object.assign(options, {method: "POST", body: JSON.stringify(value)});
    options.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw lost;
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok || body === null) throw new Refused(answer.status, body);
  return body;
}

// A sentence in which back-ticks name things: these become code, everything stays text.
export function prose(text) {
  const found = document.createDocumentFragment();
  const parts = text.split("`");
  parts.forEach((part, place) => {
    const isCode = place % 2 === 1 && parts.length % 2 === 1;
    found.append(isCode ? Object.assign(document.createElement("code"), {textContent: part}) : part);
  });
  return found;
}

export function made(name, properties = {}, ...inside) {
  const found = Object.assign(document.createElement(name), properties);
  found.append(...inside);
  return found;
}
