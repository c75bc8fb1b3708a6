// Shared by the pages: small helpers for the DOM and for requests. Texts are set as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);

function element(tag, text, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  return made;
}

async function request(address, body, signal) {
  const options = body === undefined ? { signal } : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  };
  const response = await fetch(address, options);
  const text = await response.text();
  let content;
  try { content = JSON.parse(text); } catch { content = { error: text || response.statusText }; }
  if (!response.ok) throw new Error(content.error || response.statusText);
  return content;
}

function remember(name, value) {
  document.cookie = `${name}=${encodeURIComponent(value)}; path=/home/; max-age=31536000; samesite=strict`;
}

function show(text, kind = "") {
  const message = byId("message");
  message.textContent = text;
  message.className = kind;
}
