// Makes elements. Text gets into the page as text nodes and attributes only, never as markup.

const SVG = new Set(["svg", "g", "rect", "path", "line", "text", "title", "circle", "defs", "pattern"]);

const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) redraw(target);
});

/**
 * Make an element: h("a", {href: "#/", class: "x", on: {click: f}}, "text", child, ...).
 *
 * Besides attributes: `on` are listeners, `key` names it among its siblings for `morph`, `draw` is a
 * function of the width in pixels (and the element) that gives its content, again whenever that width changes.
 * Attributes of null, undefined and false are left out.
 */
export function h(tag, given = {}, ...children) {
  const is = SVG.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(is, tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") listen(element, value);
    else if (name === "key") element.$key = value;
    else if (name === "draw") element.$draw = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  if (element.$draw) resized.observe(element);
  return element;
}

function nodes(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

function listen(element, listeners) {
  element.$on ??= {};
  for (const type of Object.keys(listeners)) {
    if (!(type in element.$on)) element.addEventListener(type, (event) => element.$on[type]?.(event));
  }
  element.$on = { ...listeners };
}

function redraw(element) {
  const width = Math.floor(element.clientWidth);
  if (width > 0) element.replaceChildren(element.$draw(width, element));
}

/** Replace what is in `place`, keeping elements that are the same: focus and selection stay. */
export function show(place, ...children) {
  morphChildren(place, nodes(children));
}

function morph(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // what a reader has opened stays open, and what he closed stays closed
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of [...next.attributes]) {
    if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
  }
  if (next.$on || old.$on) listen(old, next.$on ?? {});
  if (next.$draw) {
    resized.unobserve(next);
    old.$draw = next.$draw;
    redraw(old);
  } else if (old.nodeName !== "TEXTAREA") {
    morphChildren(old, [...next.childNodes]);
  }
}

function isSame(old, next) {
  return (
    old.nodeType === next.nodeType &&
    old.nodeName === next.nodeName &&
    old.$key === next.$key &&
    Boolean(old.$draw) === Boolean(next.$draw)
  );
}

function morphChildren(place, children) {
  const keyed = new Map();
  for (const child of place.childNodes) if (child.$key !== undefined) keyed.set(child.$key, child);
  let at = place.firstChild;
  for (const next of children) {
    const wanted = next.$key === undefined ? at : keyed.get(next.$key);
    if (wanted && isSame(wanted, next)) {
      if (wanted === at) at = at.nextSibling;
      else place.insertBefore(wanted, at);
      morph(wanted, next);
    } else if (at && at.$key === undefined && next.$key === undefined) {
      const after = at.nextSibling;
      at.replaceWith(next);
      at = after;
    } else {
      place.insertBefore(next, at);
    }
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}
