// Elements, made without HTML: whatever comes from the table gets into the page as text and as nothing else.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element. `options`: on (listeners by event), data, text; anything else is an attribute. */
export function el(tag, options = {}, ...children) {
  return filled(document.createElement(tag), options, children);
}

export function svg(tag, options = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), options, children);
}

function filled(element, { on = {}, data = {}, text = null, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const [name, value] of Object.entries(data)) element.dataset[name] = value;
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  if (text !== null) element.textContent = text;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set a text only where it differs: setting the same one again would end a selection. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Make the children those of `items`, in their order, each kept as long as its key stays. */
export function keyed(parent, items, keyOf, make, update) {
  const kept = parent.kept ?? (parent.kept = new Map());
  const wanted = new Set();
  let at = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    wanted.add(key);
    let node = kept.get(key);
    if (node === undefined) kept.set(key, (node = make(item)));
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    update(node, item);
  }
  for (const [key, node] of kept) {
    if (!wanted.has(key)) {
      node.remove();
      kept.delete(key);
    }
  }
}
