/* Asks for each prediction of the page, and covers what follows until the reader has answered.

   The markup comes from predictions.py: .course-prediction is a question, .course-revealed the table
   that answers it, and both tell their values in data-told. Covered parts are hidden "until-found":
   the browser's search and links to a heading still reach them, and uncover them. */
(() => {
  "use strict";

  const COVERED = "course-covered";

  /** Return the number in what was typed: 1.5, 1,5, 1,500 or 1.5 ms; NaN if there is none. */
  function number(typed, unit) {
    let text = typed.trim();
    if (unit && text.endsWith(unit)) text = text.slice(0, -unit.length).trim();
    if (/^[1-9]\d{0,2}(,\d{3})+(\.\d*)?$/.test(text)) text = text.replaceAll(",", "");
    text = text.replace(",", ".");
    return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
  }

  /** Return the number with its unit, as the notebook writes it. */
  function worded(value, unit) {
    const whole = { maximumFractionDigits: 0 };
    const text =
      Math.abs(value) < 999.5
        ? String(Number(value.toPrecision(3)))
        : value.toLocaleString("en-US", whole);
    return `${text} ${unit}`.trim();
  }

  /** Return the guess in words, with the range that was asked for where it lies outside. */
  function said(guess, { between: [least, most], unit }) {
    if (guess >= least && guess <= most) return worded(guess, unit);
    const range = `${worded(least, unit)} to ${worded(most, unit)}`;
    return `${worded(guess, unit)}, where ${range} was asked for`;
  }

  function made(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  /* A browser may refuse to store anything, as some do on a page opened from a file. */
  const memory = {
    key: (question) => `course prediction: ${location.pathname}: ${question}`,
    get(question) {
      try {
        return localStorage.getItem(this.key(question));
      } catch {
        return null;
      }
    },
    set(question, text) {
      try {
        if (text === null) localStorage.removeItem(this.key(question));
        else localStorage.setItem(this.key(question), text);
      } catch {
        /* it is asked again next time */
      }
    },
  };

  /** The predictions of one cell, and what stays covered until all of them are answered. */
  class Cover {
    constructor(cell) {
      this.cell = cell;
      this.asked = [];
      this.onMatch = () => this.open(); // one for all times that it closes: it is listened to once
    }

    /** Return the parts after the cell, up to and including the last answer's section. */
    parts() {
      const last = this.asked.map((one) => one.table).filter(Boolean).pop();
      if (!last) return [];
      const parts = [];
      let from = this.cell;
      while (from.parentElement && !from.parentElement.contains(last)) {
        for (let next = from.nextElementSibling; next; next = next.nextElementSibling) {
          parts.push(next);
        }
        from = from.parentElement;
      }
      for (let next = from.nextElementSibling; next; next = next.nextElementSibling) {
        parts.push(next);
        if (next.contains(last)) break;
      }
      return parts;
    }

    close() {
      this.covered = this.parts();
      for (const part of this.covered) {
        part.classList.add(COVERED);
        part.setAttribute("hidden", "until-found");
        part.addEventListener("beforematch", this.onMatch);
      }
      for (const one of this.asked) one.covers.hidden = false;
    }

    open() {
      for (const part of this.covered ?? []) {
        part.classList.remove(COVERED);
        part.removeAttribute("hidden");
      }
      this.covered = [];
      for (const one of this.asked) one.uncovered();
    }

    openWhenAnswered() {
      const open = this.asked.every((one) => one.guess !== null || !one.table);
      if (open) this.open();
      return open;
    }
  }

  let built = 0;

  /** One question: its form, its answer's table, and the guess once there is one. */
  class Prediction {
    constructor(place, cover) {
      this.place = place;
      this.cover = cover;
      this.told = JSON.parse(place.dataset.told);
      this.guess = null;
      this.id = `course-prediction-${++built}`;
    }

    /** Find the table after the question that answers it; there may be none. */
    find(tables) {
      this.table = tables.find((table) => {
        const after = this.place.compareDocumentPosition(table) & Node.DOCUMENT_POSITION_FOLLOWING;
        return after && JSON.parse(table.dataset.told).question === this.told.question;
      });
      if (this.table) {
        this.table.id ||= `${this.id}-answer`;
        this.unsaid = this.table.innerHTML;
      }
    }

    build() {
      const { question, between, unit } = this.told;
      const [least, most] = between;
      const range = `${least} to ${most} ${unit}`.trim();
      const hint = `${this.id}-hint`;
      this.input = made("input", { id: this.id, type: "text", inputMode: "decimal" });
      this.input.autocomplete = "off";
      this.input.setAttribute("aria-describedby", hint);
      const show = made("button", { type: "button" }, "Show me");
      show.addEventListener("click", () => this.show());
      this.form = made(
        "form",
        { noValidate: true },
        made("label", { htmlFor: this.id }, `Predict: ${question}?`),
        made(
          "div",
          { className: "course-row" },
          this.input,
          made("span", { id: hint }, range),
          made("button", { type: "submit" }, "That is my guess"),
          ...(this.table ? [show] : []),
        ),
      );
      const section = this.table?.closest("section");
      const heading = section?.querySelector("h1, h2, h3")?.firstChild.textContent;
      this.covers = made("p", { className: "course-covers" });
      this.covers.textContent = `What comes next, up to “${heading}”, opens with your answer.`;
      this.status = made("p", { className: "course-status" });
      this.status.setAttribute("role", "status");
      this.form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.answer(this.input.value);
      });
      this.place.replaceChildren(this.form, this.status, ...(this.table ? [this.covers] : []));
    }

    answer(typed) {
      const { question, unit } = this.told;
      const guess = number(typed, unit);
      if (!Number.isFinite(guess)) {
        this.input.setAttribute("aria-invalid", "true");
        this.status.textContent = typed.trim()
          ? `You answered “${typed.trim()}”; answer with a number, such as ${this.example()}.`
          : `Type a number, such as ${this.example()}.`;
        this.input.focus();
        return;
      }
      this.input.removeAttribute("aria-invalid");
      this.input.value = typed.trim();
      memory.set(question, this.input.value);
      this.guess = guess;
      this.fill();
      const open = this.cover.openWhenAnswered();
      this.tell(`You said ${said(guess, this.told)}.`, open);
    }

    example() {
      const [least, most] = this.told.between;
      return String(Number(((least + most) / 2).toPrecision(2)));
    }

    /** Uncover without a guess. */
    show() {
      this.cover.open();
      this.tell("Shown without a guess.", true);
    }

    uncovered() {
      this.covers.hidden = true;
      if (this.guess === null && !this.status.textContent) this.tell("Shown without a guess.", true);
    }

    tell(words, open) {
      this.status.replaceChildren(words);
      if (this.table && open) {
        const link = made("a", { href: `#${this.table.id}` }, "go to the measurement");
        const again = made("button", { type: "button", className: "course-again" }, "Ask me again");
        again.addEventListener("click", () => this.askAgain());
        this.status.append(" Read on, or ", link, ". ", again);
      } else if (this.table) {
        this.status.append(" Answer the other question, too.");
      }
    }

    /** Put the guess into the answer's table, in the notebook's words. */
    fill() {
      if (!this.table) return;
      this.table.innerHTML = this.unsaid;
      const rows = [...this.table.querySelectorAll("tbody tr")];
      const named = (name) => rows.find((row) => row.cells[0].textContent === name);
      named("you said").cells[1].textContent = said(this.guess, this.told);
      const { measured } = JSON.parse(this.table.dataset.told);
      if (measured) {
        const row = named("measured").cloneNode(true);
        row.cells[0].textContent = "you were at";
        row.cells[1].textContent = `${(this.guess / measured).toFixed(2)} times the measurement`;
        named("measured").after(row);
      }
    }

    askAgain() {
      for (const one of this.cover.asked) one.forget();
      this.cover.close();
      this.input.focus();
    }

    forget() {
      memory.set(this.told.question, null);
      this.guess = null;
      this.input.value = "";
      this.status.textContent = "";
      if (this.table) this.table.innerHTML = this.unsaid;
    }
  }

  const covers = new Map();
  const tables = [...document.querySelectorAll(".course-revealed")];
  for (const place of document.querySelectorAll(".course-prediction")) {
    const cell = place.closest(".cell") ?? place;
    if (!covers.has(cell)) covers.set(cell, new Cover(cell));
    const cover = covers.get(cell);
    const prediction = new Prediction(place, cover);
    prediction.find(tables);
    prediction.build();
    cover.asked.push(prediction);
  }
  for (const cover of covers.values()) {
    cover.close();
    for (const one of cover.asked) {
      const before = memory.get(one.told.question);
      if (before !== null) {
        one.input.value = before;
        one.answer(before);
      }
    }
  }

  /** Uncover what a link leads to, where the browser does not do so by itself. */
  function uncoverTarget() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target?.closest(`.${COVERED}`)) return;
    for (const cover of covers.values()) {
      if (cover.covered.some((part) => part.contains(target))) cover.open();
    }
    target.scrollIntoView();
  }
  addEventListener("hashchange", uncoverTarget);
  uncoverTarget();
})();
