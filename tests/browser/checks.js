// Checks of an open page. Each returns a list of faults in words; an empty list is good.
(() => {
  const LEAST_CONTRAST = 4.5; // WCAG 2.2, 1.4.3, level AA, for text of any size
  const LEAST_TARGET = 24; // CSS pixels; WCAG 2.2, 2.5.8, level AA

  const named = (element) =>
    `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") || ""}"> ` +
    `"${element.textContent.trim().slice(0, 40)}"`;

  function rgba(colour) {
    const parts = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(colour);
    if (!parts) throw new Error(`Cannot read the colour ${colour}`);
    return [1, 2, 3, 4].map((i) => (parts[i] === undefined ? 1 : Number(parts[i])));
  }

  const over = ([r, g, b, a], below) =>
    [r, g, b].map((part, i) => a * part + (1 - a) * below[i]).concat(1);

  function luminance(colour) {
    const [r, g, b] = colour.map((part) => {
      const p = part / 255;
      return p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }

  function contrast(one, other) {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }

  // What the browser paints beneath a page without a background, in the present colour scheme.
  function canvas() {
    const probe = document.createElement("div");
    probe.style.backgroundColor = "Canvas";
    document.body.append(probe);
    const colour = rgba(getComputedStyle(probe).backgroundColor);
    probe.remove();
    return colour;
  }

  function ground(element, lowest) {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") throw new Error(`A picture lies behind ${named(e)}`);
      if (style.opacity !== "1") throw new Error(`${named(e)} is translucent`);
      layers.push(rgba(style.backgroundColor));
    }
    return layers.reduceRight((below, layer) => over(layer, below), lowest);
  }

  const scrolls = (element) => /auto|scroll/.test(getComputedStyle(element).overflowX);

  function withinScroller(element) {
    for (let e = element.parentElement; e && e !== document.body; e = e.parentElement) {
      if (scrolls(e)) return true;
    }
    return false;
  }

  const shown = (element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility() && box.width > 1 && box.height > 1;
  };
  const everything = () => [...document.body.querySelectorAll("*")];

  return {
    // Text, and text that a style sheet generates, against what lies beneath it.
    paleText() {
      const lowest = canvas();
      const faults = [];
      let seen = 0;
      const measure = (element, style, text) => {
        seen += 1;
        const below = ground(element, lowest);
        const ink = rgba(element.closest("svg") ? style.fill : style.color);
        const found = contrast(over(ink, below), below);
        if (found < LEAST_CONTRAST) faults.push(`${found.toFixed(2)} ${named(element)} ${text}`);
      };
      for (const element of everything()) {
        if (element.closest("script, style, title, desc") || !element.checkVisibility()) continue;
        if ([...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim())) {
          measure(element, getComputedStyle(element), "");
        }
        for (const pseudo of ["::before", "::after"]) {
          const style = getComputedStyle(element, pseudo);
          if (style.content.startsWith('"') && style.display !== "none") {
            measure(element, style, style.content);
          }
        }
      }
      return seen ? faults : ["There is no text"];
    },

    // Whatever makes the page itself scroll sideways, or lies beyond its right edge.
    tooWide() {
      const root = document.scrollingElement;
      const faults = [];
      if (root.scrollWidth > root.clientWidth) {
        faults.push(`The page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
      }
      for (const element of everything()) {
        const beyond = element.getBoundingClientRect().right - root.clientWidth;
        if (beyond > 0.5 && shown(element) && !withinScroller(element)) {
          faults.push(`${beyond.toFixed(1)} px beyond the edge: ${named(element)}`);
        }
      }
      return faults;
    },

    // Content that is cut off, or that only scrolling would show.
    cutOff() {
      return everything()
        .filter((e) => shown(e) && getComputedStyle(e).overflow !== "visible" && !e.closest("svg"))
        .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
        .map(named);
    },

    // Things to press that a finger would miss. Links within a sentence are exempt.
    smallTargets() {
      const targets = [...document.querySelectorAll("a, button, summary")];
      return targets
        .filter((e) => shown(e) && getComputedStyle(e).display !== "inline")
        .filter((e) => {
          const box = e.getBoundingClientRect();
          return Math.min(box.width, box.height) < LEAST_TARGET;
        })
        .map(named);
    },

    // Text of figures that leaves its drawing or runs into other text.
    crowdedFigures() {
      const faults = [];
      const apart = (a, b) =>
        a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
      for (const svg of document.querySelectorAll("svg")) {
        const frame = svg.getBoundingClientRect();
        const texts = [...svg.querySelectorAll("text")];
        const boxes = texts.map((text) => text.getBoundingClientRect());
        boxes.forEach((box, i) => {
          const inside =
            box.left >= frame.left - 1 && box.right <= frame.right + 1 &&
            box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
          if (!inside) faults.push(`Leaves the figure: ${named(texts[i])}`);
          for (let j = 0; j < i; j += 1) {
            if (!apart(box, boxes[j])) faults.push(`${named(texts[j])} touches ${named(texts[i])}`);
          }
        });
      }
      return faults;
    },

    // Whether the element in focus can be seen to be, and is not covered by something else.
    hiddenFocus() {
      const element = document.activeElement;
      const style = getComputedStyle(element);
      const faults = [];
      if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) {
        faults.push(`No outline around ${named(element)}`);
      }
      for (let e = element; e; e = e.parentElement) {
        if (getComputedStyle(e).maskImage !== "none") faults.push(`Fades: ${named(element)}`);
      }
      const box = element.getClientRects()[0];
      // A region larger than the window has parts outside of it, which are no fault.
      const [left, right] = [Math.max(0, box.left), Math.min(innerWidth, box.right)];
      const [top, bottom] = [Math.max(0, box.top), Math.min(innerHeight, box.bottom)];
      const large = box.width > innerWidth || box.height > innerHeight;
      for (const part of large ? [0.5] : [0.05, 0.5, 0.95]) {
        const x = large ? (left + right) / 2 : box.left + part * box.width;
        const y = large ? (top + bottom) / 2 : box.top + 0.5 * box.height;
        const front = document.elementFromPoint(x, y);
        if (!front || !element.contains(front)) {
          const what = front ? `covered by ${named(front)}` : "out of view";
          faults.push(`${named(element)} is ${what} at ${100 * part} % of its width`);
        }
      }
      return faults;
    },
  };
})()
