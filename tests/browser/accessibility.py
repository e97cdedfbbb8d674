"""What is wrong with a page for those who do not see it, or not well: two scripts for the browser.

Each is the body of a function that returns a list of texts, [] when nothing is wrong.
"""

NAMES = """
const faults = [];
const nameOf = (element) => {
    const by = element.getAttribute("aria-labelledby");
    const named = by ? by.split(" ").map((id) => document.getElementById(id)?.textContent ?? "")
        : [element.getAttribute("aria-label") ?? "", element.getAttribute("alt") ?? ""];
    return named.join(" ").trim();
};
const hidden = (element) => element.closest("[hidden], [aria-hidden=true]") !== null;
const check = (selector, good, what) => {
    for (const element of document.querySelectorAll(selector)) {
        if (!hidden(element) && !good(element)) {
            faults.push(what + ": " + element.outerHTML.slice(0, 120));
        }
    }
};
check("img, [role=img], table, [role=region], [role=slider], input, select", nameOf, "no name");
check("svg:not([role=img])", (svg) => svg.closest("[role=img]"), "a picture without a role");
check("button, a, summary", (one) => nameOf(one) || one.textContent.trim(), "no name");
check("[role=slider]", (one) => one.getAttribute("aria-valuetext"), "no value in words");
check("th", (th) => ["col", "row"].includes(th.getAttribute("scope")), "no scope");
check("table", (table) => table.querySelector("thead th"), "no headings");
check("[tabindex='0']", (one) => nameOf(one), "can be focused, has no name");
check("section", nameOf, "no name");
if (!document.documentElement.lang) faults.push("no language");
if (!document.title) faults.push("no title");
if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push("id twice: " + id);
const live = document.querySelector("[aria-live=polite]");
if (!live || !live.textContent) faults.push("the state is not announced");
let level = 1;
for (const heading of document.querySelectorAll("h1, h2, h3")) {
    const here = Number(heading.tagName[1]);
    if (here > level + 1) faults.push("a level is left out: " + heading.textContent);
    level = here;
}
return faults;
"""

CONTRAST = """
const faults = [];
const parts = (colour) => {
    const found = colour.match(/[\\d.]+/g).map(Number);
    return found.length === 3 ? [...found, 1] : found;
};
const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
        const colour = parts(getComputedStyle(at).backgroundColor);
        if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
};
const behind = parts(getComputedStyle(document.body).backgroundColor);
const dimmed = (colour, element) => {
    let share = 1;
    for (let at = element; at; at = at.parentElement) share *= getComputedStyle(at).opacity;
    return colour.slice(0, 3).map((value, i) => value * share + behind[i] * (1 - share));
};
let seen = 0;
for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) =>
        node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!own || element.closest(".unseen, noscript, title") || !element.getClientRects().length) {
        continue;
    }
    seen += 1;
    const style = getComputedStyle(element);
    const drawn = element.ownerSVGElement ? style.fill : style.color;
    const [a, b] = [parts(drawn), ground(element)].map((colour) =>
        luminance(dimmed(colour, element)));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) {
        faults.push(ratio.toFixed(2) + ": " + element.textContent.trim().slice(0, 60));
    }
}
if (seen < 50) faults.push("only " + seen + " texts were looked at");
return faults;
"""
