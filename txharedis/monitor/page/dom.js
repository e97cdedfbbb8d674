/* Elements. Every text goes in as a text node: what servers say may look like markup. */

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** An HTML element; children are nodes, or values that become text. */
export function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element; children are nodes, or values that become text. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Change the text only if it differs: a selection, and a screen reader's place, stay. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** As `setText`, for an attribute; null takes it away. */
export function setAttribute(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== value) {
    element.setAttribute(name, value);
  }
}

/**
 * Make the children of `parent` those of `items`, in order; what is there already stays.
 * `make(item)` returns a new element, `update(element, item)` is called for each.
 */
export function keyed(parent, items, keyOf, make, update) {
  const there = new Map();
  for (const child of parent.children) there.set(child.dataset.key, child);
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = there.get(key);
    there.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    update(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const left of there.values()) left.remove();
}
