// Keeps a page as it is on the master now: fetches it again and again and changes in place what differs, so that focus, selection,
// scrolled places and opened details stay. Stops while nobody looks. Without it the page reads as it was when it was made.
"use strict";
(() => {
  const main = document.getElementById("content");
  const live = document.getElementById("live");
  const interval = Number(main.dataset.refresh);
  const slowest = 30000;
  let failures = 0;
  let paused = false;
  let timer = 0;
  let request = null;

  const button = document.createElement("button");
  button.type = "button";
  const word = document.createElement("span");
  live.replaceChildren(word);
  live.after(" ", button);
  live.parentElement.classList.add("is-live");

  const tell = (text, tone) => {
    // A word that is said again would be read out again.
    if (word.textContent !== text) word.textContent = text;
    live.className = tone;
  };

  const attributes = (from, to) => {
    for (const { name } of [...from.attributes]) {
      // What a person has opened stays open.
      const theirs = name === "open" && from.localName === "details";
      if (!theirs && !to.hasAttribute(name)) from.removeAttribute(name);
    }
    for (const { name, value } of [...to.attributes]) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
  };

  const become = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) {
      from.replaceWith(document.importNode(to, true));
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    // What is being written is not taken out of a person's hands.
    if (from.localName === "form") return;
    attributes(from, to);
    children(from, to);
  };

  const children = (from, to) => {
    const olds = [...from.childNodes];
    const news = [...to.childNodes];
    news.forEach((node, index) => {
      if (index < olds.length) become(olds[index], node);
      else from.append(document.importNode(node, true));
    });
    olds.slice(news.length).forEach((node) => node.remove());
  };

  const refresh = async () => {
    request = new AbortController();
    const patience = setTimeout(() => request.abort(), 15000);
    try {
      const address = location.pathname + location.search;
      const answer = await fetch(address, { signal: request.signal, headers: { accept: "text/html" } });
      const kind = answer.headers.get("content-type") || "";
      if (answer.status === 401 || answer.status === 403 || !kind.startsWith("text/html")) throw new Error(answer.statusText);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const content = page.getElementById("content");
      if (!content) throw new Error("no page of ours");
      children(main, content);
      document.title = page.title;
      const made = document.getElementById("made");
      made.textContent = page.getElementById("made").textContent;
      failures = 0;
      tell("Live", "good");
    } catch (error) {
      if (paused || document.hidden) return;
      failures += 1;
      tell("The master does not answer; trying on", "bad");
    } finally {
      clearTimeout(patience);
      request = null;
      plan();
    }
  };

  const plan = () => {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    timer = setTimeout(refresh, Math.min(interval * 2 ** failures, slowest));
  };

  const stop = () => {
    clearTimeout(timer);
    if (request) request.abort();
  };

  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
    if (paused) {
      stop();
      tell("Paused", "calm");
    } else {
      refresh();
    }
  });

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop();
    else if (!paused && !request) refresh();
  });

  button.textContent = "Pause";
  tell("Live", "good");
  plan();
})();
