"""What is looked for in a page that is open: what hangs over its edge, what cannot be read, what is not accessible.

The rules are those of WCAG 2.2 that a program can decide: 1.1.1, 1.3.1, 1.4.3, 1.4.10, 2.4.2, 2.4.6, 3.1.1, 4.1.1.
"""

from __future__ import annotations

from tests.lab.chromium import Page

OVERHANG = """
const wide = document.documentElement.clientWidth, found = [];
if (document.documentElement.scrollWidth > wide) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
for (const one of document.body.querySelectorAll('*')) {
  const box = one.getBoundingClientRect(), style = getComputedStyle(one);
  if (!box.width || !box.height || style.visibility === 'hidden') continue;
  if (one.closest('.scroll') && !one.matches('.scroll')) continue;
  if (box.right > wide + 1 || box.left < -1) {
    found.push(`${one.tagName} ${Math.round(box.left)} to ${Math.round(box.right)}: ${one.textContent.slice(0, 60)}`);
  }
  const isBroken = one.matches('.pill, .outcome') && box.height > 2 * parseFloat(style.fontSize);
  if (isBroken) found.push(`on two lines: ${one.textContent}`);
  const isClipped = style.overflowX !== 'visible' && style.overflowX !== 'auto' && !style.clipPath.includes('inset');
  if (isClipped && one.scrollWidth > one.clientWidth + 1) found.push(`${one.tagName} cuts off its content`);
}
return found;
"""

OVERLAPPING = """
const found = [];
for (const svg of document.querySelectorAll('svg')) {
  const texts = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  for (const [at, [name, box]] of texts.entries()) for (const [other, its] of texts.slice(at + 1)) {
    const across = Math.min(box.right, its.right) - Math.max(box.left, its.left);
    const down = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
    if (box.width && its.width && across > 1 && down > 4) found.push(`${name} lies upon ${other}`);
  }
}
return found;
"""

CONTRAST = """
const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map(one => one / 255)
  .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
  .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
const behind = one => {
  for (; one; one = one.parentElement) {
    const colour = rgb(getComputedStyle(one).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walker.nextNode()) {
  const one = walker.currentNode.parentElement, style = getComputedStyle(one);
  if (!walker.currentNode.textContent.trim() || !one.getClientRects().length) continue;
  if (one.closest('title, desc, style')) continue;
  const [ink, page] = [rgb(one.closest('svg') ? style.fill : style.color), behind(one)].map(light);
  const ratio = (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  seen += 1;
  if (ratio < (isLarge ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${walker.currentNode.textContent.slice(0, 60)}`);
}
if (!seen) found.push('there is no text');
return found;
"""

RULES = """
const found = [], all = what => [...document.querySelectorAll(what)];
if (!document.documentElement.lang) found.push('no language');
if (!document.title.trim()) found.push('no title');
if (all('h1').length !== 1) found.push(`${all('h1').length} h1`);
let before = 0;
for (const one of all('h1, h2, h3, h4, h5, h6')) {
  const level = Number(one.tagName[1]);
  if (level > before + 1) found.push(`h${level} after h${before}: ${one.textContent}`);
  if (!one.textContent.trim()) found.push('a heading without words');
  before = level;
}
for (const one of all('th')) if (!['col', 'row'].includes(one.scope)) found.push(`th without scope: ${one.textContent}`);
for (const one of all('table')) if (!one.caption || !one.caption.textContent.trim()) found.push('table without caption');
for (const one of all('svg')) {
  const named = (one.getAttribute('aria-labelledby') || '').split(' ').map(id => document.getElementById(id));
  const isNamed = named.length === 2 && named.every(it => it && it.closest('svg') === one && it.textContent.trim());
  if (one.getAttribute('role') !== 'img' || !isNamed) found.push('svg without role, title or desc');
}
for (const one of all('img')) if (!one.hasAttribute('alt')) found.push('img without alt');
for (const one of all('[aria-labelledby]')) for (const id of one.getAttribute('aria-labelledby').split(' '))
  if (!document.getElementById(id)) found.push(`aria-labelledby of nothing: ${id}`);
const ids = all('[id]').map(one => one.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`two of ${id}`);
for (const one of all('a[href^="#"]')) if (!document.getElementById(one.hash.slice(1))) found.push(`to nowhere: ${one.hash}`);
for (const one of all('script, link, iframe, object, embed, img, base, form')) found.push(`a ${one.tagName}`);
if (!document.querySelector('main')) found.push('no main');
return found;
"""  # noqa: E501  the last rules are not WCAG's but the report's own: there is nothing to fetch and nothing to run


def find_faults(page: Page) -> dict[str, list[str]]:
    """Return what is wrong with the page as it is shown now, by the kind of fault."""
    scripts = {"overhang": OVERHANG, "overlapping": OVERLAPPING, "contrast": CONTRAST, "rules": RULES}
    found = {kind: page.ask(script) for kind, script in scripts.items()}
    return {kind: faults for kind, faults in found.items() if faults}
